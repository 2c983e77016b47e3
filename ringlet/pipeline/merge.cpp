#include "ringlet/pipeline/merge.h"

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeight = ".weight";

/// "unet.a.b.weight" by component and the rest.
Replacements by_component(const std::map<std::string, at::Tensor>& weights) {
  Replacements found;
  for (const auto& [name, tensor] : weights) {
    const std::size_t dot = name.find('.');
    found[name.substr(0, dot)][name.substr(dot + 1)] = tensor;
  }
  return found;
}

void check_finite(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, name, "the merged weight holds NaN or infinite values",
                "nothing was written; a smaller strength may help");
}

/// The store's tensors, some replaced, under names that `written` gives, and `added` ones.
void write_with(const io::SafetensorsFile& base, const nn::TensorStore& store,
                const std::map<std::string, at::Tensor>& replaced,
                const std::map<std::string, at::Tensor>& added,
                const std::function<std::string(const std::string&)>& written,
                const fs::path& out) {
  std::error_code problem;
  if (fs::equivalent(base.path(), out, problem))
    throw Error(ErrorCode::invalid_argument, out.string(), "this is the model itself",
                "write to another file");
  std::map<std::string, at::Tensor> tensors = added;
  for (const auto& [name, tensor] : added) check_finite(name, tensor);
  for (const std::string& name : store.names()) {
    const auto found = replaced.find(name);
    if (found != replaced.end()) check_finite(name, found->second);
    tensors.emplace(written(name),
                    found != replaced.end() ? found->second : store.find(name, {}, {}).value());
  }
  io::save_tensors(out, tensors, base.metadata());
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
          level + names.find(entry.target.full_name() + kWeight) == layer + kWeight)
        return level;
    }
  return "";
}

void merge_named(const nn::FileStore& store, AdapterSets sets, const fs::path& out) {
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
  write_with(*store.files().front(), store, replaced, added, written, out);
}

void merge_single_file(const StableDiffusion& model, AdapterSets sets, const fs::path& out) {
  const ModelFiles& files = model.files();
  if (fs::is_directory(files.path))
    throw Error(ErrorCode::unsupported, out.string(),
                "a model folder cannot be merged into a single file",
                "give a folder name for the result");
  const Replacements replaced = by_component(adapt::merged_weights(sets));
  const std::map<std::string, const ModelComponent*> parts = {
      {"unet", &files.unet},
      {"text_encoder", &files.text_encoder},
      {"text_encoder_2", &files.text_encoder_2}};
  std::map<std::string, at::Tensor> in_file;
  for (const auto& [component, tensors] : replaced) {
    const auto& store = dynamic_cast<const formats::RenamedStore&>(*parts.at(component)->weights);
    in_file.merge(store.in_origin(tensors));
  }
  const auto file = io::SafetensorsFile::open(files.path);
  write_with(*file, nn::FileStore(std::vector{file}), in_file, {}, std::identity(), out);
}

}  // namespace

adapt::Components adaptable(const StableDiffusion& model) {
  adapt::Components components;
  for (const auto& [name, index] : model.indices())
    if (name != "vae") components.emplace(name, &index);
  return components;
}

void merge_into_folder(const StableDiffusion& model, AdapterSets sets, const fs::path& folder) {
  save_model(model, folder,
             {.replacements = by_component(adapt::merged_weights(sets)), .dtype = {}});
}

void merge_into_file(const StableDiffusion& model, AdapterSets sets, const fs::path& file) {
  nn::with_ringlet_errors(file.string(), [&] { merge_single_file(model, sets, file); });
}

void merge_tensor_file(const nn::FileStore& base, AdapterSets sets, const fs::path& out) {
  nn::with_ringlet_errors(out.string(), [&] { merge_named(base, sets, out); });
}

}  // namespace ringlet::pipeline
