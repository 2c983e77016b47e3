// Names and shapes of published checkpoints, their layers fewer and narrower, as transformers,
// torchvision and timm write them and wrote them.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::published {

/// In the order in which they are named here: equal places have equal numbers in all layouts.
struct Shapes {
  std::vector<std::pair<std::string, nn::Shape>> all;
  nn::Shape& operator[](const std::string& name) {
    return all.emplace_back(name, nn::Shape()).second;
  }
  Shapes& operator+=(const Shapes& more) {
    all.insert(all.end(), more.all.begin(), more.all.end());
    return *this;
  }
};

constexpr std::int64_t kWidth = 16, kInner = 24, kWords = 400, kPlaces = 40;

inline void linear(Shapes& to, const std::string& name, std::int64_t in, std::int64_t out) {
  to[name + ".weight"] = {out, in};
  to[name + ".bias"] = {out};
}

inline void norm(Shapes& to, const std::string& name, std::int64_t width = kWidth,
                 bool old = false) {
  to[name + (old ? ".gamma" : ".weight")] = {width};
  to[name + (old ? ".beta" : ".bias")] = {width};
}

/// BertModel or RobertaModel under `level`, without a pooler.
inline Shapes bert(const std::string& level, bool old = false) {
  Shapes s;
  const std::string e = level + "embeddings.", l = level + "encoder.layer.0.";
  s[e + "word_embeddings.weight"] = {kWords, kWidth};
  s[e + "position_embeddings.weight"] = {kPlaces, kWidth};
  s[e + "token_type_embeddings.weight"] = {2, kWidth};
  norm(s, e + "LayerNorm", kWidth, old);
  for (const char* name : {"query", "key", "value"})
    linear(s, l + "attention.self." + name, kWidth, kWidth);
  linear(s, l + "attention.output.dense", kWidth, kWidth);
  norm(s, l + "attention.output.LayerNorm", kWidth, old);
  linear(s, l + "intermediate.dense", kWidth, kInner);
  linear(s, l + "output.dense", kInner, kWidth);
  norm(s, l + "output.LayerNorm", kWidth, old);
  return s;
}

/// Masked words ("predictions") and the following sentence, as BertForPreTraining has them.
inline void pretraining_head(Shapes& to, bool old = false) {
  to["cls.predictions.bias"] = {kWords};
  linear(to, "cls.predictions.transform.dense", kWidth, kWidth);
  norm(to, "cls.predictions.transform.LayerNorm", kWidth, old);
  to["cls.predictions.decoder.weight"] = {kWords, kWidth};
  linear(to, "cls.seq_relationship", kWidth, 2);
}

inline Shapes gpt2(const std::string& level, bool buffers) {
  Shapes s;
  const std::string h = level + "h.0.";
  s[level + "wte.weight"] = {kWords, kWidth};
  s[level + "wpe.weight"] = {32, kWidth};
  for (const char* name : {"ln_1", "ln_2"}) norm(s, h + name);
  norm(s, level + "ln_f");
  for (const auto& [name, in, out] : {std::tuple{"attn.c_attn", kWidth, 3 * kWidth},
                                      {"attn.c_proj", kWidth, kWidth},
                                      {"mlp.c_fc", kWidth, 4 * kWidth},
                                      {"mlp.c_proj", 4 * kWidth, kWidth}}) {
    s[h + name + ".weight"] = {in, out};
    s[h + name + ".bias"] = {out};
  }
  if (buffers) s[h + "attn.bias"] = {1, 1, 32, 32};
  if (buffers) s[h + "attn.masked_bias"] = {};
  return s;
}

inline Shapes vit(const std::string& level) {
  Shapes s;
  const std::string l = level + "encoder.layer.0.";
  s[level + "embeddings.cls_token"] = {1, 1, kWidth};
  s[level + "embeddings.position_embeddings"] = {1, 5, kWidth};
  s[level + "embeddings.patch_embeddings.projection.weight"] = {kWidth, 3, 8, 8};
  s[level + "embeddings.patch_embeddings.projection.bias"] = {kWidth};
  for (const char* name : {"query", "key", "value"})
    linear(s, l + "attention.attention." + name, kWidth, kWidth);
  linear(s, l + "attention.output.dense", kWidth, kWidth);
  linear(s, l + "intermediate.dense", kWidth, kInner);
  linear(s, l + "output.dense", kInner, kWidth);
  for (const std::string& name :
       {l + "layernorm_before", l + "layernorm_after", level + "layernorm"})
    norm(s, name);
  return s;
}

inline void clip_layer(Shapes& to, const std::string& l) {
  for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
    linear(to, l + "self_attn." + name, kWidth, kWidth);
  linear(to, l + "mlp.fc1", kWidth, kInner);
  linear(to, l + "mlp.fc2", kInner, kWidth);
  norm(to, l + "layer_norm1");
  norm(to, l + "layer_norm2");
}

inline Shapes clip_pictures(const std::string& level) {
  Shapes s;
  s[level + "embeddings.class_embedding"] = {kWidth};
  s[level + "embeddings.patch_embedding.weight"] = {kWidth, 3, 8, 8};
  s[level + "embeddings.position_embedding.weight"] = {5, kWidth};
  norm(s, level + "pre_layrnorm");
  norm(s, level + "post_layernorm");
  clip_layer(s, level + "encoder.layers.0.");
  return s;
}

inline Shapes clip_texts(const std::string& level, std::int64_t words) {
  Shapes s;
  s[level + "embeddings.token_embedding.weight"] = {words, kWidth};
  s[level + "embeddings.position_embedding.weight"] = {16, kWidth};
  norm(s, level + "final_layer_norm");
  clip_layer(s, level + "encoder.layers.0.");
  return s;
}

inline Shapes wav2vec2(const std::string& level, bool parametrised) {
  Shapes s;
  const std::string f = level + "feature_extractor.conv_layers.", e = level + "encoder.",
                    l = e + "layers.0.", p = e + "pos_conv_embed.conv.";
  s[f + "0.conv.weight"] = {8, 1, 10};
  s[f + "1.conv.weight"] = {8, 8, 8};
  norm(s, f + "0.layer_norm", 8);
  norm(s, level + "feature_projection.layer_norm", 8);
  linear(s, level + "feature_projection.projection", 8, kWidth);
  s[p + "bias"] = {kWidth};
  s[p + (parametrised ? "parametrizations.weight.original0" : "weight_g")] = {1, 1, 4};
  s[p + (parametrised ? "parametrizations.weight.original1" : "weight_v")] = {kWidth, 8, 4};
  for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
    linear(s, l + "attention." + name, kWidth, kWidth);
  linear(s, l + "feed_forward.intermediate_dense", kWidth, kInner);
  linear(s, l + "feed_forward.output_dense", kInner, kWidth);
  for (const std::string& name : {l + "layer_norm", l + "final_layer_norm", e + "layer_norm"})
    norm(s, name);
  s[level + "masked_spec_embed"] = {kWidth};
  return s;
}

inline void batch_norm(Shapes& to, const std::string& name, std::int64_t width, bool counted) {
  norm(to, name, width);
  to[name + ".running_mean"] = {width};
  to[name + ".running_var"] = {width};
  if (counted) to[name + ".num_batches_tracked"] = {};
}

/// Names of a ResNet's pieces in a library's words.
struct ResNetWords {
  std::string stem, stem_norm;
  std::string (*block)(int stage);
  std::string (*convolution)(int number, bool norm);
  std::string shortcut, shortcut_norm, head;
};

/// Four stages of one bottleneck each, or of one plain block.
inline Shapes resnet(const ResNetWords& w, bool bottleneck, bool counted) {
  Shapes s;
  constexpr std::int64_t kFirst = 4;
  s[w.stem + ".weight"] = {kFirst, 3, 7, 7};
  batch_norm(s, w.stem_norm, kFirst, counted);
  std::int64_t in = kFirst;
  for (int stage = 0; stage < 4; ++stage) {
    const std::int64_t width = kFirst << stage, out = bottleneck ? 4 * width : width;
    const auto add = [&](const std::string& name, const std::string& its_norm, std::int64_t from,
                         std::int64_t to, std::int64_t kernel) {
      s[w.block(stage) + name + ".weight"] = {to, from, kernel, kernel};
      batch_norm(s, w.block(stage) + its_norm, to, counted);
    };
    const auto numbered = [&](int number, std::int64_t from, std::int64_t to, std::int64_t kernel) {
      add(w.convolution(number, false), w.convolution(number, true), from, to, kernel);
    };
    numbered(0, in, width, bottleneck ? 1 : 3);
    numbered(1, width, width, 3);
    if (bottleneck) numbered(2, width, out, 1);
    if (stage > 0 || in != out) add(w.shortcut, w.shortcut_norm, in, out, 1);
    in = out;
  }
  if (!w.head.empty()) linear(s, w.head, in, 2);
  return s;
}

inline ResNetWords torchvision_words() {
  return {"conv1",
          "bn1",
          [](int stage) { return "layer" + std::to_string(stage + 1) + ".0."; },
          [](int number, bool norm) { return (norm ? "bn" : "conv") + std::to_string(number + 1); },
          "downsample.0",
          "downsample.1",
          "fc"};
}

inline ResNetWords transformers_words(bool level) {
  return {
      level ? "resnet.embedder.embedder.convolution" : "embedder.embedder.convolution",
      level ? "resnet.embedder.embedder.normalization" : "embedder.embedder.normalization",
      level
          ? [](int stage) { return "resnet.encoder.stages." + std::to_string(stage) + ".layers.0."; }
          : [](int stage) { return "encoder.stages." + std::to_string(stage) + ".layers.0."; },
      [](int number, bool norm) {
        return "layer." + std::to_string(number) + (norm ? ".normalization" : ".convolution");
      },
      "shortcut.convolution",
      "shortcut.normalization",
      level ? "classifier.1" : ""};
}

/// Numbers that follow from the place: buffers as they are saved, norms near 1.
inline at::Tensor numbers(const std::string& name, const nn::Shape& shape, int place) {
  const auto ends = [&](const char* tail) { return name.ends_with(tail); };
  if (ends("position_ids")) return at::arange(shape.back(), at::kLong).view(shape);
  if (ends("num_batches_tracked")) return at::ones(shape, at::kLong);
  if (ends(".attn.bias")) return at::ones(shape, at::kByte).tril();
  const nn::RandomStore random(11);
  const at::Tensor noise = *random.find(std::to_string(place), shape, nn::Init::normal(0.1));
  const bool scale = ends("orm.weight") || ends(".gamma") || ends("running_var") ||
                     ends("weight_g") || ends("original0") ||
                     (ends(".weight") && shape.size() == 1);
  return scale ? noise * 0.1 + 1.0 : noise;
}

/// config.json and model.safetensors; returns the tensors.
inline std::map<std::string, at::Tensor> write(const std::filesystem::path& folder,
                                               const Json& config, const Shapes& shapes) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config.dump();
  std::map<std::string, at::Tensor> tensors;
  int place = 0;
  for (const auto& [name, shape] : shapes.all)
    tensors.emplace(name,
                    numbers(name, shape, name.ends_with("num_batches_tracked") ? 0 : ++place));
  for (const char* head : {"cls.predictions.decoder.weight", "lm_head.weight"})
    for (const char* words : {"bert.embeddings.word_embeddings.weight", "transformer.wte.weight"})
      if (tensors.contains(head) && tensors.contains(words)) tensors[head] = tensors[words].clone();
  io::save_tensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  return tensors;
}

}  // namespace ringlet::published
