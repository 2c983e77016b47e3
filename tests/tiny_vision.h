// Small networks that measure pictures, as folders.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/models/vision/lpips.h"
#include "ringlet/models/vision/segformer.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "ringlet/nn/weight_store.h"
#include "tests/golden/tiny_model.h"

namespace ringlet::golden {

inline Json tiny_vit_config() {
  return {{"model_type", "vit"},      {"hidden_size", 16}, {"num_hidden_layers", 1},
          {"num_attention_heads", 2}, {"image_size", 16},  {"patch_size", 8},
          {"intermediate_size", 24}};
}

/// config.json and model.safetensors with random weights.
inline void write_tiny_vit(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const Json config = tiny_vit_config();
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(3));
  const models::VisionTransformer network(source, models::VisionConfig::from_json(config, "vit"));
  io::save_tensors(folder / "model.safetensors", source.finish().tensors);
  std::ofstream(folder / "config.json") << config.dump();
}

/// A SegFormer of two stages and three classes.
inline void write_tiny_segformer(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const Json config = {{"model_type", "segformer"}, {"hidden_sizes", {8, 16}},
                       {"depths", {1, 1}},          {"num_attention_heads", {1, 2}},
                       {"sr_ratios", {2, 1}},       {"patch_sizes", {7, 3}},
                       {"strides", {4, 2}},         {"mlp_ratios", {2, 2}},
                       {"decoder_hidden_size", 8},  {"num_labels", 3}};
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(5));
  const models::Segformer network(source, models::SegformerConfig::from_json(config, "segformer"));
  auto tensors = source.finish().tensors;
  tensors["decode_head.batch_norm.weight"].fill_(1.0);
  tensors["decode_head.batch_norm.running_var"].fill_(1.0);
  io::save_tensors(folder / "model.safetensors", tensors);
  std::ofstream(folder / "config.json") << config.dump();
}

/// LPIPS with random weights: the smallest of its backbones is not small.
inline void write_lpips(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const nn::WeightSource backbone(std::make_shared<nn::RandomStore>(6));
  const nn::WeightSource linear(std::make_shared<nn::RandomStore>(7));
  const models::Lpips network(backbone, linear, models::LpipsBackbone::alexnet);
  auto weights = linear.finish().tensors;
  for (auto& [name, tensor] : weights) tensor.fill_(1.0);
  io::save_tensors(folder / "backbone.safetensors", backbone.finish().tensors);
  io::save_tensors(folder / "linear.safetensors", weights);
}

/// A whole CLIP with the tiny models' tokenizer.
inline void write_tiny_clip(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  Json config = {
      {"model_type", "clip"}, {"projection_dim", 12}, {"vision_config", tiny_vit_config()}};
  write_tokenizer(folder, "<|endoftext|>");
  const Json vocabulary = read_json_file(folder / "vocab.json");
  config["text_config"] = {{"hidden_size", 16},
                           {"num_hidden_layers", 1},
                           {"num_attention_heads", 2},
                           {"intermediate_size", 24},
                           {"vocab_size", vocabulary.size()},
                           {"max_position_embeddings", 16},
                           {"eos_token_id", vocabulary.at("<|endoftext|>")}};
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(4));
  const models::VisionTransformer vision(source, models::VisionConfig::from_json(config, "clip"));
  const models::ClipTextModel encoder(source,
                                      models::ClipTextConfig::from_clip_json(config, "clip"));
  source.get("logit_scale", {});
  io::save_tensors(folder / "model.safetensors", source.finish().tensors);
  std::ofstream(folder / "config.json") << config.dump();
}

}  // namespace ringlet::golden
