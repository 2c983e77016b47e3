#include "ringlet/data/caption_file.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

#include "ringlet/core/read_file.h"
#include "ringlet/data/picture_folder.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

std::string_view trimmed(std::string_view text) {
  constexpr const char* kBlank = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

/// Smaller is used first.
std::pair<bool, bool> rank_of(const fs::path& file) {
  const std::string extension = file.extension().string();
  const std::string lower = lower_extension(file);
  return {lower != ".txt", extension != lower};
}

}  // namespace

CaptionText read_caption(const fs::path& file) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 20;
  const std::string content = read_text_file(file, kMostBytes);
  CaptionText caption;
  for (std::size_t begin = 0; begin < content.size();) {
    const std::size_t end = std::min(content.find_first_of("\r\n", begin), content.size());
    const std::string_view line = trimmed(std::string_view(content).substr(begin, end - begin));
    begin = end + 1;
    if (line.empty()) continue;
    caption.has_more = !caption.text.empty();
    if (!caption.has_more) caption.text = line;
    (caption.lines += caption.has_more ? "\n" : "") += line;
  }
  return caption;
}

bool is_caption(const fs::path& file) {
  const std::string extension = lower_extension(file);
  return extension == ".txt" || extension == ".caption";
}

std::map<std::string, std::vector<fs::path>> captions_by_name(const std::vector<fs::path>& files,
                                                              const std::string& extension) {
  std::map<std::string, std::vector<fs::path>> captions;
  for (const fs::path& file : files)
    if (extension.empty() ? is_caption(file) : lower_extension(file) == extension)
      captions[file.stem().string()].push_back(file);
  for (auto& [name, choices] : captions) std::ranges::stable_sort(choices, {}, rank_of);
  return captions;
}

}  // namespace ringlet::data
