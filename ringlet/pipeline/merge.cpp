#include "ringlet/pipeline/merge.h"

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/original_transformer.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_folder.h"
#include "ringlet/pipeline/other_network.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeightEnding = ".weight";

/// "unet.a.b.weight" by component and the rest.
Replacements by_component(const std::map<std::string, at::Tensor>& weights) {
  Replacements found;
  for (const auto& [name, tensor] : weights) {
    const std::size_t dot = name.find('.');
    found[name.substr(0, dot)][name.substr(dot + 1)] = tensor;
  }
  return found;
}

/// Names of tensors as adapters have them, in a file.
class NamesInFile {
 public:
  explicit NamesInFile(const nn::FileStore& store)
      : store_(store), others_(models::other_names(store.names())) {}

  /// The name there of "component.path.weight", with or without the component, in any layout of
  /// its network, or "".
  std::string find(const std::string& full) const {
    for (const std::string& spelling : {full, nn::other_text_spelling(full)})
      if (!spelling.empty() && store_.find(spelling, {}, {})) return spelling;
    const std::string bare = full.substr(full.find('.') + 1);
    if (store_.find(bare, {}, {})) return bare;
    const auto other = others_.find(bare);
    return other != others_.end() ? other->second : "";
  }

 private:
  const nn::FileStore& store_;
  std::map<std::string, std::string> others_;
};

/// Weights with the adapters and all biases of their layers: a new layer has another than the file.
std::map<std::string, at::Tensor> merged_tensors(AdapterSets sets) {
  std::map<std::string, at::Tensor> merged = adapt::merged_weights(sets);
  for (const adapt::AdapterSet* set : sets)
    for (const adapt::AdapterSet::Entry& entry : set->entries())
      if (entry.target.layer->bias().defined())
        merged.emplace(entry.target.full_name() + ".bias", entry.target.layer->bias());
  return merged;
}

/// The level that a class with a head puts before names which the file has without: "bert.".
std::string missing_level(AdapterSets sets, const NamesInFile& names) {
  for (const adapt::AdapterSet* set : sets)
    for (const adapt::AdapterSet::Entry& entry : set->entries()) {
      const std::string& layer = entry.target.name;
      const std::string level = layer.substr(0, layer.find('.') + 1);
      if (!level.empty() &&
          level + names.find(entry.target.full_name() + kWeightEnding) == layer + kWeightEnding)
        return level;
    }
  return "";
}

/// Into a transformer in its original layout, whose layers are divided there.
void merge_original(const std::shared_ptr<const nn::FileStore>& file,
                    const formats::RenamedStore& transformer, AdapterSets sets,
                    const fs::path& out) {
  std::map<std::string, at::Tensor> replaced;
  for (const auto& [component, tensors] : by_component(merged_tensors(sets)))
    replaced.merge(transformer.in_origin(tensors));
  write_changed(*file->files().front(), *formats::readable_weights(file), replaced, {},
                std::identity(), out);
}

void merge_named(const nn::FileStore& store, AdapterSets sets, const fs::path& out) {
  if (formats::find_original_transformer(store)) {
    const auto file = std::make_shared<const nn::FileStore>(store.files());
    const auto transformer = network_of(file);
    return merge_original(file, dynamic_cast<const formats::RenamedStore&>(*transformer), sets,
                          out);
  }
  const NamesInFile names(store);
  std::map<std::string, at::Tensor> replaced, added;
  for (const auto& [name, tensor] : merged_tensors(sets)) {
    const std::string found = names.find(name);
    if (found.empty())
      added.emplace(name.substr(name.find('.') + 1), tensor);
    else
      replaced.emplace(found, tensor);
  }
  // With a new head the network lies under the level of the class that has this head.
  const std::string level = added.empty() ? "" : missing_level(sets, names);
  const auto written = [&](const std::string& name) {
    return !level.empty() && names.find("." + level + name) == name ? level + name : name;
  };
  write_changed(*store.files().front(), store, replaced, added, written, out);
}

}  // namespace

void merge_into_folder(const TextToImageModel& model, AdapterSets sets, const fs::path& folder) {
  model.save(folder, {.replacements = by_component(adapt::merged_weights(sets)), .dtype = {}});
}

void merge_into_file(const TextToImageModel& model, AdapterSets sets, const fs::path& file) {
  model.save_file(file, by_component(adapt::merged_weights(sets)));
}

void merge_tensor_file(const nn::FileStore& base, AdapterSets sets, const fs::path& out) {
  nn::with_ringlet_errors(out.string(), [&] { merge_named(base, sets, out); });
}

}  // namespace ringlet::pipeline
