#include "ringlet/data/picture_folder.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with("."); }

/// Also true for what a symbolic link leads to. A link to itself is no folder.
bool is_folder(const fs::path& path) {
  std::error_code problem;
  return fs::is_directory(path, problem);
}

std::string trimmed(const std::string& text) {
  constexpr const char* kBlank = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

/// Some editors begin UTF-8 files with it.
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string read_caption(const fs::path& picture) {
  for (const char* extension : {".txt", ".caption"}) {
    const fs::path path = fs::path(picture).replace_extension(extension);
    std::ifstream file(path);
    bool first = true;
    for (std::string line; std::getline(file, line); first = false) {
      if (first && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
      const std::string caption = trimmed(line);
      if (caption.empty()) continue;
      if (!is_utf8(caption))
        throw Error(ErrorCode::bad_format, path.string(), "the caption is not valid UTF-8",
                    "save the file as UTF-8 text");
      return caption;
    }
  }
  return "";
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

/// `parents` are the folders on the way here, so that a link to one of them is not followed.
void add_pictures(const fs::path& folder, const RepeatFolder& rule, std::vector<fs::path> parents,
                  PictureFolder& found) {
  std::error_code problem;
  const fs::path here = fs::canonical(folder, problem);
  if (std::ranges::find(parents, here) != parents.end()) return;
  parents.push_back(here);
  for (const fs::path& path : entries_of(folder)) {
    if (is_folder(path)) {
      if (!is_hidden(path)) add_pictures(path, rule, parents, found);
    } else if (is_picture(path)) {
      std::string caption = read_caption(path);
      found.captions += caption.empty() ? 0 : 1;
      found.pictures.push_back({path, caption.empty() ? rule.words : caption, rule.repeats});
    }
  }
}

/// "2 to 10 repeats".
std::string repeats_of(const std::vector<Picture>& pictures) {
  const auto [least, most] = std::ranges::minmax(pictures, {}, &Picture::repeats);
  return (least.repeats == most.repeats ? "" : std::to_string(least.repeats) + " to ") +
         std::to_string(most.repeats) + (most.repeats == 1 ? " repeat" : " repeats");
}

std::string passed_over(const fs::path& folder, const std::vector<std::string>& names) {
  return folder.string() +
         ": the subfolders named REPEATS_words are read, others are passed over: " + join(names) +
         "; name them like 1_words to use them";
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
  static constexpr std::array kExtensions = {".png", ".jpg", ".jpeg", ".webp"};
  return !is_hidden(path) && !is_folder(path) &&
         std::ranges::find(kExtensions, lower_extension(path)) != kExtensions.end();
}

PictureFolder read_picture_folder(const fs::path& folder) {
  std::error_code problem;
  if (!is_folder(folder))
    throw Error(ErrorCode::not_found, folder.string(),
                fs::exists(fs::symlink_status(folder, problem)) ? "this is no folder"
                                                                : "the folder does not exist",
                "give the folder that holds the pictures");
  const std::vector<fs::path> entries = entries_of(folder);
  const auto is_repeat_folder = [](const fs::path& path) {
    return is_folder(path) && repeat_folder(path).has_value();
  };
  PictureFolder found;
  const bool kohya =
      std::ranges::any_of(entries, is_repeat_folder) && std::ranges::none_of(entries, is_picture);
  if (kohya) {
    found.rule = "subfolders REPEATS_words";
    std::vector<std::string> others;
    for (const fs::path& path : entries)
      if (is_repeat_folder(path))
        add_pictures(path, *repeat_folder(path), {}, found);
      else if (is_folder(path) && !is_hidden(path))
        others.push_back(path.filename().string());
    // "2023_summer" is 2023 repeats of "summer", which nobody may have meant.
    if (!found.pictures.empty()) found.rule += ", " + repeats_of(found.pictures);
    if (!others.empty()) log(LogLevel::warning, passed_over(folder, others));
  } else {
    found.rule = "pictures of the folder and its subfolders";
    add_pictures(folder, {1, ""}, {}, found);
  }
  if (found.pictures.empty())
    throw Error(ErrorCode::not_found, folder.string(), "there are no pictures in the folder",
                "looked for .png, .jpg, .jpeg and .webp files, also in subfolders (" +
                    std::to_string(entries.size()) + " other entries are there)");
  return found;
}

}  // namespace ringlet::data
