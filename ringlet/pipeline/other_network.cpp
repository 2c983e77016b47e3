#include "ringlet/pipeline/other_network.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/json.h"
#include "ringlet/formats/ldm/ldm_vae.h"
#include "ringlet/formats/original_layout.h"
#include "ringlet/formats/original_transformer.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/models/text/gpt2.h"
#include "ringlet/nn/text_model_level.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeight = ".weight";
constexpr std::array kDiffusion = {"unet", "transformer", "text_encoder", "text_encoder_2",
                                   "text_encoder_3"};

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
  if (formats::transformer_family(whole) != formats::TransformerFamily::none) return "transformer";
  const bool pictures = has("visual_projection.weight");  // all of CLIP
  if (has("text_model.embeddings.token_embedding.weight") && !pictures)
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

/// The layers of a network that `called` gives other paths, by "component.path".
std::map<std::string, std::string> other_paths(
    const std::string& component, const nn::ModuleIndex& network,
    const std::function<std::string(const std::string&)>& called) {
  std::map<std::string, std::string> paths;
  for (const auto& entry : network.layers)
    if (std::string path = called(entry.first); path != entry.first)
      paths.emplace(component + "." + entry.first, std::move(path));
  return paths;
}

bool is_own(const fs::path& adapter) {
  return fs::is_regular_file(adapter) &&
         io::SafetensorsFile::open(adapter)->metadata().contains("ringlet.method");
}

std::vector<std::string> names_of(const nn::ModuleIndex& index) {
  std::vector<std::string> names;
  for (const auto& entry : index.tensors) names.push_back(entry.first);
  return names;
}

/// The layer that a weight's name means, "" for other tensors.
std::string layer_of(const std::string& tensor) {
  return tensor.ends_with(kWeight) ? tensor.substr(0, tensor.size() - kWeight.size()) : "";
}

void add(nn::ModuleIndex& to, const std::string& as, const nn::ModuleIndex& from,
         const std::string& name) {
  to.tensors.emplace(as, from.tensors.at(name));
  const auto layer = from.layers.find(layer_of(name));
  if (layer != from.layers.end()) to.layers.emplace(layer_of(as), layer->second);
}

}  // namespace

std::shared_ptr<const nn::FileStore> open_network_file(const fs::path& path) {
  const bool is_folder = fs::is_directory(path) && fs::exists(path / "config.json") &&
                         !fs::exists(path / "model_index.json");
  fs::path file = path;
  if (is_folder) {
    file = path / "model.safetensors";
    if (!fs::exists(file)) file = path / "diffusion_pytorch_model.safetensors";
  }
  if (!fs::is_regular_file(file) || file.extension() != ".safetensors") return {};
  return nn::FileStore::open(file);
}

bool is_transformer_alone(const std::shared_ptr<const nn::FileStore>& file,
                          const ModelFileOptions& options) {
  return formats::find_original_transformer(*file) && !formats::find_autoencoder(*file) &&
         options.text_encoders.empty() && options.vae.empty();
}

std::shared_ptr<const nn::TensorStore> network_of(
    const std::shared_ptr<const nn::FileStore>& file) {
  const auto store = formats::readable_weights(file);
  if (const auto found = formats::find_original_transformer(*store))
    return formats::open_original_transformer(store, *found).weights;
  // Extraction tells rounding by the type that a file has.
  const auto* widened = dynamic_cast<const formats::WidenedStore*>(store.get());
  const bool plain = widened != nullptr && !widened->has_scales();
  return formats::with_text_model_level(plain ? widened->stored() : store);
}

nn::ModuleIndex layers_of(const std::shared_ptr<const nn::FileStore>& file) {
  const auto store = network_of(file);
  nn::ModuleIndex index;
  for (const std::string& name : store->names()) {
    const at::Tensor tensor = store->find(name, {}, {}).value();
    if (!tensor.is_floating_point()) continue;
    index.tensors.emplace(name, tensor);
    const std::string layer = layer_of(name);
    if (layer.empty()) continue;
    const auto bias = store->find(layer + ".bias", {}, {}).value_or(at::Tensor());
    if (tensor.dim() == 2 && is_table(layer))
      index.layers.emplace(layer, std::make_shared<nn::EmbeddingLayer>(tensor));
    else if (auto made = nn::layer_of_tensor(tensor, bias, models::gpt2_stores_transposed(layer)))
      index.layers.emplace(layer, made);
  }
  return index;
}

nn::ModuleIndex with_other_names(nn::ModuleIndex index) {
  nn::ModuleIndex more;
  for (const auto& [other, own] : models::other_names(names_of(index)))
    if (index.tensors.contains(own)) add(more, other, index, own);
  index.tensors.merge(more.tensors);
  index.layers.merge(more.layers);
  return index;
}

std::map<std::string, nn::ModuleIndex> networks_of(const std::shared_ptr<const nn::FileStore>& file,
                                                   std::span<const fs::path> adapters) {
  nn::ModuleIndex whole = layers_of(file);
  const std::string only = component_of(whole);
  if (only == kOtherComponent) whole = with_other_names(std::move(whole));
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
    // GPT-2's heads keep a decoder of this name.
    if (component == std::string_view("transformer") &&
        formats::transformer_family(part) == formats::TransformerFamily::none)
      continue;
    networks.emplace(component, std::move(part));
    any = true;
  }
  if (!any) networks.emplace(only, std::move(whole));
  return networks;
}

std::map<std::string, std::string> class_names(
    const fs::path& path, const nn::FileStore& file,
    const std::map<std::string, nn::ModuleIndex>& networks) {
  if (!fs::is_directory(path) || networks.size() != 1) return {};
  const fs::path config_file = path / "config.json";
  const Json config = read_json_file(config_file);
  const auto classes =
      json_value<std::vector<std::string>>(config, "architectures", {}, config_file.string());
  if (classes.empty()) return {};
  const bool head = classes.front().find("For") != std::string::npos ||
                    classes.front().find("Head") != std::string::npos;
  const models::PublishedLayout layout(models::network_type(config), file.names(), config);
  const auto& [component, network] = *networks.begin();
  return other_paths(component, network, [&](const std::string& layer) {
    std::string name = layout.class_name(layer + ".");
    if (!head) name = layout.bare_name(name);
    name.pop_back();
    return name;
  });
}

void match_names(nn::ModuleIndex& base, nn::ModuleIndex& tuned) {
  const std::vector<std::string> of_base = names_of(base), of_tuned = names_of(tuned);
  if (of_base == of_tuned) return;
  // Where the base's own name is known there, it is kept: what is extracted fits the base.
  const nn::ModuleIndex known = with_other_names(tuned);
  nn::ModuleIndex left, right;
  std::set<at::TensorImpl*> used;
  for (const std::string& name : of_base) {
    const auto found = known.tensors.find(name);
    if (found == known.tensors.end() && models::is_left_out(name, of_base)) continue;
    add(left, name, base, name);
    if (found == known.tensors.end()) continue;
    add(right, name, known, name);
    used.insert(found->second.unsafeGetTensorImpl());
  }
  for (const std::string& name : of_tuned)
    if (!used.contains(tuned.tensors.at(name).unsafeGetTensorImpl()) &&
        !models::is_left_out(name, of_tuned))
      add(right, name, tuned, name);
  base = std::move(left);
  tuned = std::move(right);
}

}  // namespace ringlet::pipeline
