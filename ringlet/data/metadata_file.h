// Captions of many pictures in one file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ringlet::data {

struct MetadataEntry {
  std::string picture;  ///< as the file names it: a path, or a name without its extension
  std::string caption;
  std::string where;  ///< for messages: the file, with its line in a .jsonl
};

/// Reads one of two forms:
///   .jsonl  a JSON object in each line, with "file_name" and "text" (Hugging Face's image
///   folders);
///           "caption" and "prompt" stand for "text"
///   .json   one object of pictures, each with "caption", "tags" or both (kohya's scripts); both
///   are
///           joined by ", "
/// Throws Error(not_found | io), and Error(bad_format) with the line for what is neither.
std::vector<MetadataEntry> read_metadata(const std::filesystem::path& file);

/// The metadata file that lies in a folder of pictures under its usual name, or "".
std::filesystem::path metadata_beside(const std::filesystem::path& folder);

}  // namespace ringlet::data
