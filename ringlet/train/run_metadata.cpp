#include "ringlet/train/run_metadata.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "ringlet/core/json.h"

namespace ringlet::train {
namespace {

/// Settings that are texts, of which the texts are ringlet's own words, versions or hashes of the
/// base. Other texts may be captions, names or patterns.
constexpr std::array<std::string_view, 15> kPublicTexts = {
    "base storage", "control", "control network", "crop",      "learning rate decay",
    "method",       "model",   "optimizer",       "precision", "prediction",
    "resolution",   "ringlet", "sigma weighting", "task",      "time density"};

bool is_public(const std::string& key, const Json& value) {
  if (value.is_number() || value.is_boolean()) return true;
  return value.is_string() && std::ranges::find(kPublicTexts, key) != kPublicTexts.end();
}

bool names_the_base(const std::string& key) {
  if (key.starts_with("modelspec.")) return key != "modelspec.title";
  return key == "ss_base_model_version" || key == "ss_v2" || key.starts_with("ss_network_");
}

Json public_part(const Json& training) {
  Json kept = Json::object();
  for (const auto& [key, value] : training.items())
    if (is_public(key, value)) kept[key] = value;
  return kept;
}

}  // namespace

void keep_metadata(adapt::AdapterFileInfo& info, adapt::MetadataLevel level) {
  if (level == adapt::MetadataLevel::full) return;
  if (level == adapt::MetadataLevel::none) {
    info.training.clear();
    info.extra.clear();
    info.base_hash.clear();
    info.base_kind.clear();
    return;
  }
  if (!info.training.empty())
    info.training = public_part(parse_json(info.training, "training")).dump();
  std::erase_if(info.extra, [](const auto& entry) { return !names_the_base(entry.first); });
}

}  // namespace ringlet::train
