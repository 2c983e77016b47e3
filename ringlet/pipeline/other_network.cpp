#include "ringlet/pipeline/other_network.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include "ringlet/adapt/adapter_file.h"
#include "ringlet/core/json.h"
#include "ringlet/formats/inner_level.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/formats/single_file.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr std::array kDiffusion = {"unet", "text_encoder", "text_encoder_2"};

/// What transformers calls tables: GPT-2's, BERT's, CLIP's, those of newer decoders.
bool is_table(const std::string& layer) {
  static constexpr std::array kTables = {"wte",
                                         "wpe",
                                         "word_embeddings",
                                         "position_embeddings",
                                         "token_type_embeddings",
                                         "embed_tokens",
                                         "embed_positions",
                                         "token_embedding",
                                         "position_embedding"};
  const std::string name = layer.substr(layer.rfind('.') + 1);
  return std::ranges::find(kTables, name) != kTables.end();
}

/// Who a file of one network is in a model of diffusers, or kOtherComponent.
std::string component_of(const nn::ModuleIndex& whole) {
  const auto has = [&](const std::string& name) { return whole.tensors.contains(name); };
  if (has("conv_in.weight") && has("time_embedding.linear_1.weight")) return "unet";
  for (const char* level : {"text_model.", ""})
    if (has(std::string(level) + "embeddings.token_embedding.weight"))
      return has("text_projection.weight") ? "text_encoder_2" : "text_encoder";
  return kOtherComponent;
}

/// The part whose names start with `prefix`, under the rest of their names.
nn::ModuleIndex below(const nn::ModuleIndex& whole, const std::string& prefix) {
  nn::ModuleIndex part;
  for (const auto& [name, layer] : whole.layers)
    if (name.starts_with(prefix)) part.layers.emplace(name.substr(prefix.size()), layer);
  for (const auto& [name, tensor] : whole.tensors)
    if (name.starts_with(prefix)) part.tensors.emplace(name.substr(prefix.size()), tensor);
  return part;
}

bool is_own(const fs::path& adapter) {
  return fs::is_regular_file(adapter) &&
         io::SafetensorsFile::open(adapter)->metadata().contains("ringlet.method");
}

}  // namespace

fs::path other_network_file(const fs::path& path) {
  const bool is_folder = fs::is_directory(path) && fs::exists(path / "config.json") &&
                         !fs::exists(path / "model_index.json");
  fs::path file = path;
  if (is_folder) {
    file = path / "model.safetensors";
    if (!fs::exists(file)) file = path / "diffusion_pytorch_model.safetensors";
  }
  if (!fs::is_regular_file(file) || file.extension() != ".safetensors") return {};
  return formats::is_single_file_model(*nn::FileStore::open(file)) ? fs::path() : file;
}

nn::ModuleIndex layers_of_file(const fs::path& file) {
  constexpr std::string_view kWeight = ".weight";
  const auto store = formats::with_text_model_level(nn::FileStore::open(file));
  nn::ModuleIndex index;
  for (const std::string& name : store->names()) {
    const at::Tensor tensor = store->find(name, {}, {}).value();
    if (!tensor.is_floating_point()) continue;
    index.tensors.emplace(name, tensor);
    if (!name.ends_with(kWeight)) continue;
    const std::string layer = name.substr(0, name.size() - kWeight.size());
    const auto bias = store->find(layer + ".bias", {}, {}).value_or(at::Tensor());
    if (tensor.dim() == 2 && is_table(layer))
      index.layers.emplace(layer, std::make_shared<nn::EmbeddingLayer>(tensor));
    else if (auto made = nn::layer_of_tensor(layer, tensor, bias))
      index.layers.emplace(layer, made);
  }
  return index;
}

std::map<std::string, nn::ModuleIndex> networks_of_file(const fs::path& file,
                                                        std::span<const fs::path> adapters) {
  const nn::ModuleIndex whole = layers_of_file(file);
  std::map<std::string, nn::ModuleIndex> networks;
  bool foreign = false;
  for (const fs::path& adapter : adapters) {
    if (!is_own(adapter)) {
      foreign = true;
      continue;
    }
    for (const std::string& layer : adapt::adapted_layers(adapter)) {
      const std::string component = layer.substr(0, layer.find('.'));
      if (networks.contains(component)) continue;
      const bool named = whole.layers.contains(layer) || whole.tensors.contains(layer);
      networks.emplace(component, named ? below(whole, component + ".") : whole);
    }
  }
  if (!foreign) return networks;
  bool any = false;
  for (const char* component : kDiffusion) {
    nn::ModuleIndex part = below(whole, std::string(component) + ".");
    if (part.tensors.empty()) continue;
    networks.emplace(component, std::move(part));
    any = true;
  }
  if (!any) networks.emplace(component_of(whole), whole);
  return networks;
}

std::string missing_level(const fs::path& path,
                          const std::map<std::string, nn::ModuleIndex>& networks) {
  if (!fs::is_directory(path) || networks.size() != 1) return "";
  const fs::path file = path / "config.json";
  const auto classes = json_value<std::vector<std::string>>(read_json_file(file), "architectures",
                                                            {}, file.string());
  const std::string level = classes.empty() ? "" : formats::inner_level(classes.front());
  const auto has_it = [&](const auto& tensor) { return tensor.first.starts_with(level); };
  return std::ranges::any_of(networks.begin()->second.tensors, has_it) ? "" : level;
}

}  // namespace ringlet::pipeline
