#include "ringlet/data/folder_note.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/data/picture_folder.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

/// How a kind is said of one file and of several; the files' names follow, then `advice`.
struct Wording {
  NoteKind kind;
  const char* name;
  const char* one;
  const char* several;
  const char* advice = "";
};

constexpr std::array kWordings = {
    Wording{NoteKind::unread_picture, "unread_picture", "1 file of an unsupported type",
            " files of unsupported types", "; convert to PNG, JPEG or WebP"},
    Wording{NoteKind::mask, "mask", "1 mask or conditioning image is skipped",
            " masks and conditioning images are skipped"},
    Wording{NoteKind::other_program, "other_program",
            "1 file or folder of other programs is skipped",
            " files and folders of other programs are skipped"},
    Wording{NoteKind::other_file, "other_file", "1 file is neither a picture nor a caption",
            " files are neither pictures nor captions"},
    Wording{NoteKind::subfolder, "subfolder",
            "1 subfolder is skipped, since its name is not REPEATS_words",
            " subfolders are skipped, since their names are not REPEATS_words",
            "; name them like 1_words to use them"},
    Wording{NoteKind::unsearched, "unsearched", "1 subfolder is not searched",
            " subfolders are not searched"},
    Wording{NoteKind::unlisted, "unlisted", "1 picture is not in the metadata file and is left out",
            " pictures are not in the metadata file and are left out"},
    Wording{NoteKind::empty_caption, "empty_caption", "1 caption file is empty",
            " caption files are empty"},
    Wording{NoteKind::longer_caption, "longer_caption",
            "1 caption has more than one line; only the first is used",
            " captions have more than one line; only the first is used"},
    Wording{NoteKind::second_caption, "second_caption",
            "1 caption file is not used: its picture has another, which comes first",
            " caption files are not used: their pictures have others, which come first"},
    Wording{NoteKind::lonely_caption, "lonely_caption",
            "1 caption file belongs to no picture that is read",
            " caption files belong to no picture that is read"},
    Wording{NoteKind::unused_caption, "unused_caption", "1 caption file is not used",
            " caption files are not used"},
};

const Wording& wording_of(NoteKind kind) {
  return *std::ranges::find(kWordings, kind, &Wording::kind);
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  });
  return text;
}

/// ".gif .heic": each extension once.
std::string extensions_of(const std::vector<fs::path>& files) {
  std::set<std::string> extensions;
  for (const fs::path& file : files) extensions.insert(lower_extension(file));
  return join(std::vector(extensions.begin(), extensions.end()), " ");
}

std::string some_of(const std::vector<fs::path>& files) {
  constexpr std::size_t kShown = 5;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(kShown, files.size()); ++i)
    names.push_back(files[i].generic_string());
  return join(names) +
         (files.size() > kShown ? " and " + std::to_string(files.size() - kShown) + " more" : "");
}

}  // namespace

std::vector<FolderNote> make_notes(const NotedFiles& files, const fs::path& folder) {
  std::vector<FolderNote> notes;
  for (const auto& [kind, paths] : files) {
    FolderNote note{kind, {}};
    for (const fs::path& path : paths) note.files.push_back(path.lexically_relative(folder));
    std::ranges::sort(note.files);
    if (!note.files.empty()) notes.push_back(std::move(note));
  }
  return notes;
}

const char* name_of(NoteKind kind) { return wording_of(kind).name; }

std::string text_of(const FolderNote& note) {
  const Wording& wording = wording_of(note.kind);
  const std::size_t count = note.files.size();
  return (count == 1 ? wording.one : std::to_string(count) + wording.several) + ": " +
         (note.kind == NoteKind::unread_picture ? extensions_of(note.files) : some_of(note.files)) +
         wording.advice;
}

void log_notes(const std::vector<FolderNote>& notes, const fs::path& folder) {
  for (const FolderNote& note : notes)
    if (note.kind != NoteKind::other_file)
      log(LogLevel::warning, folder.string() + ": " + text_of(note));
}

bool is_unread_picture(const fs::path& file) {
  static const std::set<std::string> kExtensions = {
      ".3fr", ".arw", ".avi", ".avif", ".cr2",  ".cr3", ".dds",  ".dng",  ".eps",
      ".exr", ".gif", ".hdr", ".heic", ".heif", ".hif", ".ico",  ".j2k",  ".jp2",
      ".jpx", ".jxl", ".jxr", ".kra",  ".m4v",  ".mkv", ".mov",  ".mp4",  ".nef",
      ".orf", ".pbm", ".pcx", ".pdf",  ".pgm",  ".pnm", ".ppm",  ".psb",  ".psd",
      ".raf", ".raw", ".rw2", ".svg",  ".tga",  ".tif", ".tiff", ".webm", ".xcf"};
  return kExtensions.contains(lower_extension(file));
}

bool is_of_other_program(const fs::path& path) {
  static const std::set<std::string> kNames = {
      "@eadir",       "@recycle",    "#recycle",         "#snapshot",
      "$recycle.bin", "__macosx",    "__pycache__",      "lost+found",
      "thumbs.db",    "ehthumbs.db", "desktop.ini",      "picasa.ini",
      "folder.db",    "icon\r",      "zbthumbnail.info", "system volume information"};
  const std::string name = lower(path.filename().string());
  return name.starts_with(".") || kNames.contains(name) || name.starts_with("ehthumbs_");
}

std::string masked_name(const fs::path& file) {
  const std::string name = file.stem().string(), small = lower(name);
  for (const char* end : {"-masklabel", "-condlabel", "_masklabel", "_condlabel", "_mask", "-mask",
                          ".mask", "_masks", "-masks", "_conditioning", "-conditioning"})
    if (const std::string_view suffix(end); small.size() > suffix.size() && small.ends_with(suffix))
      return name.substr(0, name.size() - suffix.size());
  for (const char* begin : {"mask_", "mask-"})
    if (const std::string_view prefix(begin);
        small.size() > prefix.size() && small.starts_with(prefix))
      return name.substr(prefix.size());
  return "";
}

bool is_mask_folder(const fs::path& folder) {
  static const std::set<std::string> kNames = {"mask",
                                               "masks",
                                               "masklabel",
                                               "masklabels",
                                               "cond",
                                               "condition",
                                               "conditions",
                                               "conditioning",
                                               "conditionings",
                                               "conditioning_data",
                                               "conditioning_data_dir",
                                               "conditioning_images",
                                               "conditioning_image",
                                               "control",
                                               "controls",
                                               "control_images"};
  const std::string name = lower(folder.filename().string());
  return kNames.contains(name) || !masked_name(fs::path(name + ".x")).empty();
}

}  // namespace ringlet::data
