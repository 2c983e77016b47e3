// Finds training pictures and their captions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ringlet::data {

struct Picture {
  std::filesystem::path path;
  std::string caption;  ///< from the text file beside it, or ""
  std::int64_t repeats = 1;
};

struct PictureFolder {
  std::vector<Picture> pictures;  ///< sorted by path
  std::size_t captions = 0;       ///< pictures with a caption of their own
  std::string rule;               ///< how the folder was read, for the plan that is shown
};

/// Pictures (.png, .jpg, .jpeg, .webp) of a folder, in one of two layouts:
///   flat    the pictures lie in the folder itself (subfolders are searched, too)
///   kohya   the folder holds subfolders "N_words" and no picture: N repeats, `words` stand in for
///           missing captions; other subfolders are passed over, with a warning that names them
/// Names that begin with a dot are passed over, and so are links that lead back. The caption of
/// a.png is the first line that is not blank of a.txt or a.caption. Throws Error(not_found) with
/// what was looked for when there is no folder or no picture in it, and Error(bad_format) for a
/// caption that is not UTF-8.
PictureFolder read_picture_folder(const std::filesystem::path& folder);

std::vector<std::filesystem::path> paths_of(const std::vector<Picture>& pictures);

/// A file that is not hidden with one of these extensions, in letters of either case.
bool is_picture(const std::filesystem::path& path);

/// ".png" of "a.PNG".
std::string lower_extension(const std::filesystem::path& path);

}  // namespace ringlet::data
