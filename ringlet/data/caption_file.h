// Captions in text files beside pictures.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace ringlet::data {

struct CaptionText {
  std::string text;       ///< the first line that is not blank, or ""
  bool has_more = false;  ///< other lines that are not blank follow
  std::string lines;      ///< all lines that are not blank, with line feeds between them
};

/// Reads UTF-8, or UTF-16 with a byte order mark. Throws Error(not_found | io), Error(unsupported)
/// for a file of more than 1 MiB, and Error(bad_format) for other encodings.
CaptionText read_caption(const std::filesystem::path& file);

/// A file called .txt or .caption, in letters of either case.
bool is_caption(const std::filesystem::path& file);

/// The caption files among `files` by their names without extension, those first that win: .txt
/// before .caption, lower case before others. With an extension (".tags") just such files.
std::map<std::string, std::vector<std::filesystem::path>> captions_by_name(
    const std::vector<std::filesystem::path>& files, const std::string& extension = {});

}  // namespace ringlet::data
