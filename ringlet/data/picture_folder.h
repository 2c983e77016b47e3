// Finds training pictures and their captions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/data/aspect_buckets.h"
#include "ringlet/data/folder_note.h"

namespace ringlet::data {

/// How a picture is shown, where that differs from one picture to the next.
struct PictureUse {
  std::size_t dataset = 0;                ///< the number of its data set
  std::optional<BucketPlace> place = {};  ///< none = the run's resolution
  std::optional<bool> random_crop = {};   ///< none = as the run does it
  std::optional<bool> flip = {};
  std::vector<std::string> captions = {};  ///< the variants of its caption; none = just that
  std::optional<double> caption_dropout = {};
  std::int64_t dropout_every_epochs = 0;  ///< see drops_captions
  std::filesystem::path mask = {};        ///< a mask file; empty for none
  bool masked_by_alpha = false;           ///< its own alpha channel is the mask
};

struct Picture {
  std::filesystem::path path;
  std::string caption;  ///< from the text file beside it, or ""
  std::int64_t repeats = 1;
  std::filesystem::path caption_file = {};  ///< the text file; empty for none
  PictureUse use = {};

  /// The caption that is shown first.
  const std::string& shown_caption() const {
    return use.captions.empty() ? caption : use.captions.front();
  }
};

struct PictureFolder {
  std::vector<Picture> pictures;  ///< sorted by path
  std::size_t captions = 0;       ///< pictures with a caption of their own
  std::string rule;               ///< how the folder was read, for the plan that is shown
  std::vector<FolderNote> notes;  ///< what is not used of it; a kind at most once
};

/// Of captions beside pictures: they are read, said to be unused, or not looked at.
enum class Captions { read, unused, ignored };

struct PictureFolderOptions {
  Captions captions = Captions::read;
  bool may_be_empty = false;  ///< a folder without pictures is not an error
  bool subfolders = true;     ///< false: the pictures of the folder itself, and no kohya layout
  std::string caption_extension = {};  ///< ".tags", in lower case; "" = .txt and .caption
  bool all_lines = false;              ///< captions keep all their lines: one is drawn for each use
};

/// Pictures (io::kImageExtensions) of a folder, in one of two layouts:
///   flat    the pictures lie in the folder itself (subfolders are searched, too)
///   kohya   the folder holds subfolders "N_words" and no picture: N repeats, `words` stand in for
///           missing captions; other subfolders are skipped
/// What is_of_other_program says is skipped, and so are links that lead back; masks beside their
/// picture, and folders of masks or conditioning pictures that have other pictures' names. The
/// caption of a.png is the first line that is not blank of a.txt or a.caption. `notes` says what
/// was skipped. Throws Error(not_found) with what was looked for when there is no folder or no
/// picture in it, and as read_caption, with all captions that cannot be read.
PictureFolder read_picture_folder(const std::filesystem::path& folder,
                                  const PictureFolderOptions& options = {});

/// The same for callers that show no plan: the notes, but for those of other files, are logged as
/// warnings.
std::vector<Picture> read_pictures(const std::filesystem::path& folder,
                                   const PictureFolderOptions& options = {});

std::vector<std::filesystem::path> paths_of(const std::vector<Picture>& pictures);

/// A file with one of io::kImageExtensions, in letters of either case, and not of another program.
bool is_picture(const std::filesystem::path& path);

/// Whether one of them lies in the folder itself.
bool holds_pictures(const std::filesystem::path& folder);

/// ".png" of "a.PNG".
std::string lower_extension(const std::filesystem::path& path);

}  // namespace ringlet::data
