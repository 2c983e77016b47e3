// The networks of Stable Diffusion in their real shapes, with weights that occupy nothing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "ringlet/core/json.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet {

using Indices = std::map<std::string, nn::ModuleIndex>;

/// Tensors of any shape that occupy one number.
class HollowStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string&, const nn::Shape& shape,
                                 const nn::Init&) const override {
    return at::zeros({1}).expand(shape);
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "hollow weights"; }
};

template <class Model, class Config>
nn::ModuleIndex hollow(const Json& config) {
  const nn::WeightSource source(std::make_shared<HollowStore>());
  const Model model(source, Config::from_json(config, "config"));
  return source.finish();
}

inline nn::ModuleIndex hollow_unet(const Json& config) {
  return hollow<models::UNet, models::UNetConfig>(config);
}

inline nn::ModuleIndex hollow_text(std::int64_t width, std::int64_t layers,
                                   bool projection = false) {
  Json config = {{"hidden_size", width},
                 {"intermediate_size", 4 * width},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", width / 64},
                 {"projection_dim", width}};
  if (projection) config["architectures"] = {"CLIPTextModelWithProjection"};
  return hollow<models::ClipTextModel, models::ClipTextConfig>(config);
}

inline Json unet_config(std::vector<std::int64_t> channels, std::int64_t context, bool linear) {
  std::vector<std::string> down(channels.size(), "CrossAttnDownBlock2D");
  std::vector<std::string> up(channels.size(), "CrossAttnUpBlock2D");
  down.back() = "DownBlock2D";
  up.front() = "UpBlock2D";
  return {{"block_out_channels", std::move(channels)},
          {"down_block_types", down},
          {"up_block_types", up},
          {"layers_per_block", 2},
          {"cross_attention_dim", context},
          {"attention_head_dim", 8},
          {"use_linear_projection", linear}};
}

inline Indices stable_diffusion_1() {
  Indices all;
  all["unet"] = hollow_unet(unet_config({320, 640, 1280, 1280}, 768, false));
  all["text_encoder"] = hollow_text(768, 12);
  return all;
}

inline Indices stable_diffusion_2() {
  Indices all;
  all["unet"] = hollow_unet(unet_config({320, 640, 1280, 1280}, 1024, true));
  all["text_encoder"] = hollow_text(1024, 23);
  return all;
}

inline Indices stable_diffusion_xl() {
  Json config = unet_config({320, 640, 1280}, 2048, true);
  config["down_block_types"] = {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"};
  config["up_block_types"] = {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"};
  config["transformer_layers_per_block"] = {1, 2, 10};
  config["addition_embed_type"] = "text_time";
  config["addition_time_embed_dim"] = 256;
  config["projection_class_embeddings_input_dim"] = 2816;
  Indices all;
  all["unet"] = hollow_unet(config);
  all["text_encoder"] = hollow_text(768, 12);
  all["text_encoder_2"] = hollow_text(1280, 32, /*projection=*/true);
  return all;
}

inline std::map<std::string, const nn::ModuleIndex*> components(const Indices& indices) {
  std::map<std::string, const nn::ModuleIndex*> out;
  for (const auto& [name, index] : indices) out.emplace(name, &index);
  return out;
}

/// Layers of no size under given paths.
inline nn::ModuleIndex layers(const std::vector<std::string>& paths) {
  nn::ModuleIndex index;
  for (const std::string& path : paths)
    index.layers[path] = std::make_shared<nn::LinearLayer>(at::zeros({1, 1}), at::Tensor());
  return index;
}

inline std::vector<std::string> layer_names(const nn::ModuleIndex& index) {
  std::vector<std::string> names;
  for (const auto& layer : index.layers) names.push_back(layer.first);
  return names;
}

}  // namespace ringlet
