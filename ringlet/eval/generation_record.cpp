#include "ringlet/eval/generation_record.h"

#include <algorithm>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/sha256.h"
#include "ringlet/data/picture_folder.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;
using Entries = GenerationRecord::Entries;

constexpr const char* kOtherFolder =
    "give another `generated`, or remove this folder's pictures and generation.json";

Json object_of(const Entries& entries) {
  Json object = Json::object();
  for (const auto& [name, value] : entries) object[name] = value;
  return object;
}

/// As the file has it: words that are not UTF-8 are the same then when they are read back.
std::string text_of(const GenerationRecord& record) {
  const Json json = {{"settings", object_of(record.settings)},
                     {"prompts", object_of(record.prompts)}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string shown(const Json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end()) return "nothing";
  return "\"" + (found->is_string() ? found->get<std::string>() : found->dump()) + "\"";
}

/// The names in their order, then those that only the other side has.
std::vector<std::string> names_of(const Entries& entries, const Json& others) {
  std::vector<std::string> names;
  for (const auto& [name, value] : entries) names.push_back(name);
  for (const auto& [name, value] : others.items())
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  return names;
}

void check_same(const fs::path& folder, const std::string& what, const Entries& wanted,
                const Json& now, const Json& before) {
  for (const std::string& name : names_of(wanted, before)) {
    const std::string old_value = shown(before, name), value = shown(now, name);
    if (old_value != value)
      throw Error(ErrorCode::mismatch, folder.string(),
                  "its pictures were made with other settings: " + what + name + " was " +
                      old_value + " and is now " + value,
                  kOtherFolder);
  }
}

}  // namespace

Entries GenerationRecord::summary() const {
  std::string text;
  for (const auto& [name, prompt] : prompts) text += name + "\n" + prompt + "\n";
  Entries entries = settings;
  entries.emplace_back("prompts",
                       std::to_string(prompts.size()) + " (" + short_hash(sha256_text(text)) + ")");
  return entries;
}

void claim_folder(const fs::path& folder, const GenerationRecord& record) {
  make_folder(folder);
  const fs::path file = folder / kGenerationFile;
  const std::string text = text_of(record);
  if (data::holds_pictures(folder)) {
    if (!fs::exists(file))
      throw Error(ErrorCode::mismatch, folder.string(),
                  "holds pictures without a generation.json: their settings are unknown",
                  "give another `generated`, or leave `model` out to measure them as they are");
    const Json now = parse_json(text, file.string()), before = read_json_file(file);
    const auto part = [&](const char* key) {
      return json_require<Json>(before, key, file.string());
    };
    check_same(folder, "", record.settings, now.at("settings"), part("settings"));
    check_same(folder, "the prompt of ", record.prompts, now.at("prompts"), part("prompts"));
  }
  write_file_atomically(file, text);
}

}  // namespace ringlet::eval
