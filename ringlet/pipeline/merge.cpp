#include "ringlet/pipeline/merge.h"

#include <map>
#include <memory>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

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

void write_with(const io::SafetensorsFile& base, const nn::TensorStore& store,
                const std::map<std::string, at::Tensor>& replaced, const fs::path& out) {
  std::error_code problem;
  if (fs::equivalent(base.path(), out, problem))
    throw Error(ErrorCode::invalid_argument, out.string(), "this is the model itself",
                "write to another file");
  std::map<std::string, at::Tensor> tensors;
  for (const std::string& name : store.names()) {
    const auto found = replaced.find(name);
    if (found != replaced.end()) check_finite(name, found->second);
    tensors.emplace(name,
                    found != replaced.end() ? found->second : store.find(name, {}, {}).value());
  }
  io::save_tensors(out, tensors, base.metadata());
}

/// The name in a file of "component.path.weight", with or without the component and, for a text
/// encoder, the level "text_model."; or "".
std::string name_in(const nn::FileStore& store, const std::string& full) {
  for (const std::string& spelling : {full, nn::other_text_spelling(full)})
    for (const std::string& name : {spelling, spelling.substr(spelling.find('.') + 1)})
      if (!name.empty() && store.find(name, {}, {})) return name;
  return "";
}

void merge_named(const fs::path& base, AdapterSets sets, const fs::path& out) {
  const auto file = io::SafetensorsFile::open(base);
  const nn::FileStore store(std::vector{file});
  std::map<std::string, at::Tensor> replaced;
  for (const auto& [full, tensor] : adapt::merged_weights(sets)) {
    const std::string name = name_in(store, full);
    if (!replaced.emplace(name, tensor).second)
      throw Error(ErrorCode::invalid_argument, name,
                  "is changed by two adapters that call its network by different names",
                  "merge one after the other");
  }
  write_with(*file, store, replaced, out);
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
  write_with(*file, nn::FileStore(std::vector{file}), in_file, out);
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

void merge_tensor_file(const fs::path& base, AdapterSets sets, const fs::path& out) {
  nn::with_ringlet_errors(out.string(), [&] { merge_named(base, sets, out); });
}

}  // namespace ringlet::pipeline
