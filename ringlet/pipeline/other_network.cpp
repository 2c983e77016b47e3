#include "ringlet/pipeline/other_network.h"

#include <string_view>

#include "ringlet/formats/single_file.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::pipeline {

namespace fs = std::filesystem;

fs::path other_network_file(const fs::path& path) {
  const bool is_folder = fs::is_directory(path) && fs::exists(path / "config.json") &&
                         !fs::exists(path / "model_index.json");
  const fs::path file = is_folder ? path / "model.safetensors" : path;
  if (!fs::is_regular_file(file) || file.extension() != ".safetensors") return {};
  return formats::is_single_file_model(*nn::FileStore::open(file)) ? fs::path() : file;
}

nn::ModuleIndex layers_of_file(const fs::path& file) {
  constexpr std::string_view kWeight = ".weight";
  const auto store = nn::FileStore::open(file);
  nn::ModuleIndex index;
  for (const std::string& name : store->names()) {
    const at::Tensor tensor = store->find(name, {}, {}).value();
    if (!tensor.is_floating_point()) continue;
    index.tensors.emplace(name, tensor);
    if (!name.ends_with(kWeight)) continue;
    const std::string layer = name.substr(0, name.size() - kWeight.size());
    const auto bias = store->find(layer + ".bias", {}, {}).value_or(at::Tensor());
    if (auto made = nn::layer_of_tensor(layer, tensor, bias)) index.layers.emplace(layer, made);
  }
  return index;
}

}  // namespace ringlet::pipeline
