#include "ringlet/data/picture_folder.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/error_list.h"
#include "ringlet/core/text.h"
#include "ringlet/data/caption_file.h"
#include "ringlet/io/image.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

/// Also true for what a symbolic link leads to. A link to itself is no folder.
bool is_folder(const fs::path& path) {
  std::error_code problem;
  return fs::is_directory(path, problem);
}

/// "10_sks dog": ten repeats of "sks dog".
struct RepeatFolder {
  std::int64_t repeats;
  std::string words;
};

std::optional<RepeatFolder> repeat_folder(const fs::path& path) {
  const std::string name = path.filename().string();
  std::int64_t repeats = 0;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), repeats);
  if (problem != std::errc() || repeats < 1 || end == name.data() + name.size() || *end != '_')
    return std::nullopt;
  return RepeatFolder{repeats, std::string(end + 1, name.data() + name.size())};
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::error_code problem;
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder, problem)) entries.push_back(entry.path());
  if (problem)
    throw Error(ErrorCode::io, folder.string(), "the folder cannot be read: " + problem.message());
  std::ranges::sort(entries);
  return entries;
}

/// "2 to 10 repeats".
std::string repeats_of(const std::vector<Picture>& pictures) {
  const auto [least, most] = std::ranges::minmax(pictures, {}, &Picture::repeats);
  return (least.repeats == most.repeats ? "" : std::to_string(least.repeats) + " to ") +
         std::to_string(most.repeats) + (most.repeats == 1 ? " repeat" : " repeats");
}

/// " (2 in a, 1 in b)", of the pictures that lie in subfolders; "" for none.
std::string counts_of(const std::vector<Picture>& pictures, const fs::path& root) {
  std::map<std::string, std::size_t> counts;
  for (const Picture& picture : pictures) {
    const fs::path below = picture.path.lexically_relative(root);
    if (below.has_parent_path()) ++counts[below.begin()->string()];
  }
  constexpr std::size_t kShown = 5;
  std::vector<std::string> parts;
  for (const auto& [name, count] : counts) {
    if (parts.size() == kShown) {
      parts.push_back(std::to_string(counts.size() - kShown) + " more");
      break;
    }
    parts.push_back(std::to_string(count) + " in " + name);
  }
  return parts.empty() ? "" : " (" + join(parts) + ")";
}

std::string extension_list() {
  return join(std::vector<std::string>(io::kImageExtensions.begin(), io::kImageExtensions.end()));
}

/// What OneTrainer calls masks and conditioning pictures, whether or not their picture is there.
bool is_label_of_onetrainer(const fs::path& path) {
  const std::string name = path.stem().string();
  return name.ends_with("-masklabel") || name.ends_with("-condlabel");
}

/// Reads one folder with what lies below it.
class FolderReader {
 public:
  FolderReader(fs::path root, const PictureFolderOptions& options)
      : root_(std::move(root)), options_(options) {}

  PictureFolder read();

 private:
  /// Pictures and notes of a part of the folder.
  struct Part {
    std::vector<Picture> pictures;
    NotedFiles notes;
  };

  void add_folder(const fs::path& folder, const RepeatFolder& rule, std::vector<fs::path> parents,
                  Part& part);
  void add_files(const std::vector<fs::path>& entries, const RepeatFolder& rule, Part& part);
  void add_caption(const std::vector<fs::path>& choices, Picture& picture, NotedFiles& notes);
  void decide_on_masks();
  Error no_pictures(std::size_t entries, const std::vector<FolderNote>& notes) const;

  fs::path root_;
  PictureFolderOptions options_;
  Part found_;
  std::vector<std::pair<fs::path, Part>> mask_folders_;  ///< by their names alone
  std::vector<Error> unreadable_;                        ///< captions
};

/// `parents` are the folders on the way here, so that a link to one of them is not followed.
void FolderReader::add_folder(const fs::path& folder, const RepeatFolder& rule,
                              std::vector<fs::path> parents, Part& part) {
  std::error_code problem;
  const fs::path here = fs::canonical(folder, problem);
  if (std::ranges::find(parents, here) != parents.end()) return;
  parents.push_back(here);
  const std::vector<fs::path> entries = entries_of(folder);
  add_files(entries, rule, part);
  for (const fs::path& path : entries) {
    if (!is_folder(path) || is_of_other_program(path)) continue;
    if (!options_.subfolders) {
      part.notes[is_mask_folder(path) ? NoteKind::mask : NoteKind::unsearched].push_back(path);
      continue;
    }
    if (!is_mask_folder(path)) {
      add_folder(path, rule, parents, part);
      continue;
    }
    Part masks;
    add_folder(path, rule, parents, masks);
    mask_folders_.emplace_back(path, std::move(masks));
  }
}

/// The files of one folder.
void FolderReader::add_files(const std::vector<fs::path>& entries, const RepeatFolder& rule,
                             Part& part) {
  std::set<std::string> names;
  std::vector<fs::path> files;  // that may be captions
  for (const fs::path& path : entries) {
    if (is_picture(path)) names.insert(path.stem().string());
    if (!is_of_other_program(path) && !is_folder(path)) files.push_back(path);
  }
  const auto captions = captions_by_name(files, options_.caption_extension);
  std::set<std::string> used;
  for (const fs::path& path : entries) {
    if (is_of_other_program(path)) {
      part.notes[NoteKind::other_program].push_back(path);
    } else if (is_folder(path)) {
      continue;
    } else if (is_picture(path)) {
      const bool labelled = is_label_of_onetrainer(path);
      if (labelled || names.contains(masked_name(path))) {
        part.notes[NoteKind::mask].push_back(path);
        continue;
      }
      Picture picture{path, rule.words, rule.repeats};
      const std::string name = path.stem().string();
      if (options_.captions == Captions::read && captions.contains(name)) {
        NotedFiles again;  // of a caption that two pictures share
        add_caption(captions.at(name), picture, used.insert(name).second ? part.notes : again);
      }
      part.pictures.push_back(std::move(picture));
    } else if (is_unread_picture(path)) {
      part.notes[NoteKind::unread_picture].push_back(path);
    } else if (!options_.caption_extension.empty() &&
               lower_extension(path) == options_.caption_extension) {
      continue;
    } else if (!is_caption(path)) {
      part.notes[NoteKind::other_file].push_back(path);
    } else if (!options_.caption_extension.empty()) {
      part.notes[NoteKind::unused_caption].push_back(path);
    }
  }
  if (options_.captions == Captions::ignored) return;
  auto& unused = part.notes[options_.captions == Captions::read ? NoteKind::lonely_caption
                                                                : NoteKind::unused_caption];
  for (const auto& [name, choices] : captions)
    if (!used.contains(name)) unused.insert(unused.end(), choices.begin(), choices.end());
}

/// The first of the files that says something.
void FolderReader::add_caption(const std::vector<fs::path>& choices, Picture& picture,
                               NotedFiles& notes) {
  for (const fs::path& file : choices) {
    if (!picture.caption_file.empty()) {
      notes[NoteKind::second_caption].push_back(file);
      continue;
    }
    try {
      CaptionText caption = read_caption(file);
      if (caption.text.empty()) {
        notes[NoteKind::empty_caption].push_back(file);
        continue;
      }
      if (caption.has_more && !options_.all_lines) notes[NoteKind::longer_caption].push_back(file);
      picture.caption = std::move(options_.all_lines ? caption.lines : caption.text);
      picture.caption_file = file;
    } catch (const Error& error) {
      // Two pictures may share it.
      if (std::ranges::find(unreadable_, error.where(), &Error::where) == unreadable_.end())
        unreadable_.push_back(error);
      return;
    }
  }
}

/// A folder that is called "masks" holds masks when its pictures have the names of others.
void FolderReader::decide_on_masks() {
  std::set<std::string> names;
  for (const Picture& picture : found_.pictures) names.insert(picture.path.stem().string());
  for (auto& [folder, part] : mask_folders_) {
    const bool masks = std::ranges::any_of(part.pictures, [&](const Picture& picture) {
      return names.contains(picture.path.stem().string()) ||
             names.contains(masked_name(picture.path));
    });
    if (masks) {
      found_.notes[NoteKind::mask].push_back(folder);
      continue;
    }
    for (Picture& picture : part.pictures) found_.pictures.push_back(std::move(picture));
    for (const auto& [kind, files] : part.notes)
      found_.notes[kind].insert(found_.notes[kind].end(), files.begin(), files.end());
  }
}

Error FolderReader::no_pictures(std::size_t entries, const std::vector<FolderNote>& notes) const {
  std::string hint = "looked for " + extension_list() + " files, also in subfolders (" +
                     std::to_string(entries) + " other entries are there)";
  for (const FolderNote& note : notes) hint += "\n  " + text_of(note);
  return {ErrorCode::not_found, root_.string(), "there are no pictures in the folder", hint};
}

PictureFolder FolderReader::read() {
  const std::vector<fs::path> entries = entries_of(root_);
  const auto is_repeat_folder = [](const fs::path& path) {
    return is_folder(path) && repeat_folder(path).has_value();
  };
  const bool kohya = options_.subfolders && std::ranges::any_of(entries, is_repeat_folder) &&
                     std::ranges::none_of(entries, is_picture);
  if (kohya) {
    add_files(entries, {1, ""}, found_);
    for (const fs::path& path : entries)
      if (is_repeat_folder(path))
        add_folder(path, *repeat_folder(path), {}, found_);
      else if (is_folder(path) && !is_of_other_program(path))
        found_.notes[NoteKind::subfolder].push_back(path);
  } else {
    add_folder(root_, {1, ""}, {}, found_);
  }
  decide_on_masks();
  throw_together(unreadable_, root_.string(),
                 std::to_string(unreadable_.size()) + " captions cannot be read");
  PictureFolder out{std::move(found_.pictures), 0, "", make_notes(found_.notes, root_)};
  if (out.pictures.empty()) {
    if (!options_.may_be_empty) throw no_pictures(entries.size(), out.notes);
    return out;
  }
  std::ranges::sort(out.pictures, {}, &Picture::path);
  out.captions = static_cast<std::size_t>(std::ranges::count_if(
      out.pictures, [](const Picture& picture) { return !picture.caption_file.empty(); }));
  // "2023_summer" is 2023 repeats of "summer", which nobody may have meant.
  out.rule = kohya ? "subfolders REPEATS_words, " + repeats_of(out.pictures)
             : options_.subfolders
                 ? "pictures of the folder and its subfolders" + counts_of(out.pictures, root_)
                 : "pictures of the folder itself";
  return out;
}

}  // namespace

std::vector<fs::path> paths_of(const std::vector<Picture>& pictures) {
  std::vector<fs::path> paths;
  for (const Picture& picture : pictures) paths.push_back(picture.path);
  return paths;
}

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension;
}

bool is_picture(const fs::path& path) {
  return !is_of_other_program(path) && !is_folder(path) &&
         std::ranges::find(io::kImageExtensions, lower_extension(path)) !=
             io::kImageExtensions.end();
}

bool holds_pictures(const fs::path& folder) {
  return std::ranges::any_of(fs::directory_iterator(folder), [](const fs::directory_entry& entry) {
    return is_picture(entry.path());
  });
}

PictureFolder read_picture_folder(const fs::path& folder, const PictureFolderOptions& options) {
  std::error_code problem;
  if (!is_folder(folder))
    throw Error(ErrorCode::not_found, folder.string(),
                fs::exists(fs::symlink_status(folder, problem)) ? "this is not a folder"
                                                                : "the folder does not exist",
                "give the folder that holds the pictures");
  return FolderReader(folder, options).read();
}

std::vector<Picture> read_pictures(const fs::path& folder, const PictureFolderOptions& options) {
  PictureFolder found = read_picture_folder(folder, options);
  log_notes(found.notes, folder);
  return std::move(found.pictures);
}

}  // namespace ringlet::data
