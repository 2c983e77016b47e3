#include "ringlet/data/metadata_file.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/read_file.h"
#include "ringlet/data/picture_folder.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostMetadata = std::uint64_t{1} << 28;

Error not_metadata(const std::string& where, const std::string& what) {
  return {ErrorCode::bad_format, where, what,
          "a line of a .jsonl is {\"file_name\": \"a.png\", \"text\": \"a caption\"}, a .json is "
          "{\"a\": {\"caption\": \"a caption\"}}"};
}

/// The caption under the first of some keys, or "".
std::string text_in(const Json& object, const std::string& where,
                    std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (std::string text = json_value<std::string>(object, key, "", where); !text.empty())
      return text;
  return "";
}

std::vector<MetadataEntry> read_lines(const fs::path& file, const std::string& content) {
  std::vector<MetadataEntry> entries;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < content.size();) {
    const std::size_t end = std::min(content.find('\n', begin), content.size());
    const std::string line = content.substr(begin, end - begin);
    begin = end + 1;
    const std::string where = file.string() + ":" + std::to_string(++number);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json object = parse_json(line, where);
    if (!object.is_object()) throw not_metadata(where, "the line is not a JSON object");
    const std::string picture = text_in(object, where, {"file_name"});
    if (picture.empty()) throw not_metadata(where, "the line has no \"file_name\"");
    entries.push_back({picture, text_in(object, where, {"text", "caption", "prompt"}), where});
  }
  return entries;
}

std::vector<MetadataEntry> read_table(const fs::path& file, const std::string& content) {
  const std::string where = file.string();
  const Json table = parse_json(content, where, {.max_bytes = kMostMetadata});
  if (!table.is_object()) throw not_metadata(where, "the file is not a table of pictures");
  std::vector<MetadataEntry> entries;
  for (const auto& [picture, value] : table.items()) {
    if (!value.is_object())
      throw not_metadata(where, "the picture \"" + picture + "\" has no table of its own");
    const std::string caption = text_in(value, where, {"caption"});
    const std::string tags = text_in(value, where, {"tags"});
    entries.push_back(
        {picture, caption + (caption.empty() || tags.empty() ? "" : ", ") + tags, where});
  }
  return entries;
}

}  // namespace

std::vector<MetadataEntry> read_metadata(const fs::path& file) {
  const std::string extension = lower_extension(file);
  if (extension != ".jsonl" && extension != ".json")
    throw Error(ErrorCode::unsupported, file.string(), "is not a metadata file",
                "metadata is read from .jsonl and .json");
  const std::string content = read_text_file(file, kMostMetadata);
  std::vector<MetadataEntry> entries =
      extension == ".jsonl" ? read_lines(file, content) : read_table(file, content);
  if (entries.empty()) throw not_metadata(file.string(), "the file names no picture");
  return entries;
}

fs::path metadata_beside(const fs::path& folder) {
  const fs::path file = folder / "metadata.jsonl";
  return fs::is_regular_file(file) ? file : fs::path();
}

}  // namespace ringlet::data
