// What a user should know about a folder of pictures before a run: files that are not used, and
// captions that are used in part.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace ringlet::data {

enum class NoteKind {
  unread_picture,  ///< pictures and videos of unsupported types
  mask,            ///< masks and conditioning pictures beside their picture, and folders of them
  other_program,   ///< hidden files, thumbnails and what else other programs leave
  other_file,      ///< neither pictures nor captions
  subfolder,       ///< in kohya's layout: without repeats in its name
  unsearched,      ///< subfolders, where those are not asked for
  unlisted,        ///< pictures that a metadata file does not name
  empty_caption,
  longer_caption,  ///< more than one line, of which the first is the caption
  second_caption,  ///< another file has the picture's caption already
  lonely_caption,  ///< of no picture that is read
  unused_caption,  ///< where captions are not asked for
};

struct FolderNote {
  NoteKind kind;
  std::vector<std::filesystem::path> files;  ///< relative to the folder, sorted
};

using NotedFiles = std::map<NoteKind, std::vector<std::filesystem::path>>;

/// Notes of these files of `folder`, one per kind.
std::vector<FolderNote> make_notes(const NotedFiles& files, const std::filesystem::path& folder);

/// A short name for programs: "unread_picture".
const char* name_of(NoteKind kind);

/// The note in one sentence: "2 files of unsupported types: .gif .heic; convert …".
std::string text_of(const FolderNote& note);

/// Logs the notes as warnings, for callers that show no plan. Files that are neither pictures nor
/// captions are usual where other verbs write, and left out.
void log_notes(const std::vector<FolderNote>& notes, const std::filesystem::path& folder);

/// Files that are pictures or videos by their names, but of unsupported types.
bool is_unread_picture(const std::filesystem::path& file);

/// Hidden files and folders, thumbnails, previews and waste bins that other programs keep beside
/// pictures: ".DS_Store", "@eaDir", "__MACOSX", "Thumbs.db".
bool is_of_other_program(const std::filesystem::path& path);

/// The picture that a mask or conditioning picture belongs to by its name, without extension: "a"
/// of "a-masklabel.png" (OneTrainer) and of "a_mask.png"; "" for other names.
std::string masked_name(const std::filesystem::path& file);

/// Folders whose name says masks or conditioning pictures: "masks", "conditioning_data".
bool is_mask_folder(const std::filesystem::path& folder);

}  // namespace ringlet::data
