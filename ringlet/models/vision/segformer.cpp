#include "ringlet/models/vision/segformer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

at::Tensor to_tokens(const at::Tensor& map) { return map.flatten(2).transpose(1, 2); }

at::Tensor to_map(const at::Tensor& tokens, std::int64_t height, std::int64_t width) {
  return tokens.transpose(1, 2).reshape({tokens.size(0), tokens.size(2), height, width});
}

}  // namespace

SegformerConfig SegformerConfig::from_json(const Json& json, const std::string& where) {
  const auto type = json_require<std::string>(json, "model_type", where);
  if (type != "segformer")
    throw Error(ErrorCode::unsupported, where, "model_type \"" + type + "\" is not known",
                "ringlet segments with segformer");
  if (json_value<std::string>(json, "hidden_act", "gelu", where) != "gelu")
    throw Error(ErrorCode::unsupported, where, "field \"hidden_act\" is not \"gelu\"");
  using Numbers = std::vector<std::int64_t>;
  const auto widths = json_value(json, "hidden_sizes", Numbers{32, 64, 160, 256}, where);
  const auto per_stage = [&](const char* key, Numbers fallback) {
    const auto numbers = json_value(json, key, std::move(fallback), where);
    if (numbers.size() != widths.size())
      throw Error(ErrorCode::bad_format, where,
                  std::string("field \"") + key + "\" does not have one number per stage");
    for (const std::int64_t number : numbers)
      if (number <= 0)
        throw Error(ErrorCode::bad_format, where, std::string(key) + " must be positive");
    return numbers;
  };
  const Numbers layers = per_stage("depths", {2, 2, 2, 2}),
                heads = per_stage("num_attention_heads", {1, 2, 5, 8}),
                reductions = per_stage("sr_ratios", {8, 4, 2, 1}),
                patches = per_stage("patch_sizes", {7, 3, 3, 3}),
                strides = per_stage("strides", {4, 2, 2, 2}),
                ratios = per_stage("mlp_ratios", {4, 4, 4, 4});
  SegformerConfig c;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    if (widths[i] <= 0 || widths[i] % heads[i] != 0)
      throw Error(ErrorCode::bad_format, where, "hidden_sizes must be multiples of the heads");
    c.stages.push_back({widths[i], layers[i], heads[i], reductions[i], patches[i], strides[i],
                        ratios[i] * widths[i]});
  }
  c.decoder_width = json_value(json, "decoder_hidden_size", c.decoder_width, where);
  // The number of classes is stated by their names, or alone.
  const Json labels = json_value(json, "id2label", Json::object(), where);
  c.classes = labels.empty() ? json_value(json, "num_labels", c.classes, where)
                             : static_cast<std::int64_t>(labels.size());
  if (c.stages.empty() || c.decoder_width <= 0 || c.classes <= 0)
    throw Error(ErrorCode::bad_format, where, "sizes must be positive");
  return c;
}

Segformer::EncoderLayer::EncoderLayer(const nn::WeightSource& s,
                                      const SegformerConfig::Stage& stage)
    : heads(stage.heads),
      inner_width(stage.inner_width),
      layer_norm_1(s.at("layer_norm_1"), stage.width),
      layer_norm_2(s.at("layer_norm_2"), stage.width),
      query(s.at("attention.self.query"), stage.width, stage.width),
      key(s.at("attention.self.key"), stage.width, stage.width),
      value(s.at("attention.self.value"), stage.width, stage.width),
      output(s.at("attention.output.dense"), stage.width, stage.width),
      dense1(s.at("mlp.dense1"), stage.width, stage.inner_width),
      dense2(s.at("mlp.dense2"), stage.inner_width, stage.width),
      depthwise_weight(s.at("mlp.dwconv.dwconv").get("weight", {stage.inner_width, 1, 3, 3})),
      depthwise_bias(s.at("mlp.dwconv.dwconv").get("bias", {stage.inner_width})) {
  if (stage.reduction == 1) return;
  reduction.emplace(s.at("attention.self.sr"), stage.width, stage.width, stage.reduction,
                    nn::Conv2dOptions{.stride = stage.reduction});
  reduction_norm.emplace(s.at("attention.self.layer_norm"), stage.width);
}

at::Tensor Segformer::EncoderLayer::forward(const at::Tensor& x, std::int64_t height,
                                            std::int64_t width) const {
  const at::Tensor h = layer_norm_1(x);
  const at::Tensor seen =
      reduction ? (*reduction_norm)(to_tokens((*reduction)(to_map(h, height, width)))) : h;
  const at::Tensor y =
      x + output(nn::multi_head_attention(query(h), key(seen), value(seen), heads));
  const at::Tensor mixed = at::conv2d(to_map(dense1(layer_norm_2(y)), height, width),
                                      depthwise_weight, depthwise_bias, /*stride=*/1,
                                      /*padding=*/1, /*dilation=*/1, /*groups=*/inner_width);
  return y + dense2(at::gelu(to_tokens(mixed)));
}

Segformer::EncoderStage::EncoderStage(const nn::WeightSource& encoder,
                                      const SegformerConfig::Stage& stage, std::int64_t number,
                                      std::int64_t in)
    : proj(encoder.at("patch_embeddings").at(number).at("proj"), in, stage.width, stage.patch,
           {.stride = stage.stride, .padding = stage.patch / 2}),
      patch_norm(encoder.at("patch_embeddings").at(number).at("layer_norm"), stage.width),
      norm(encoder.at("layer_norm").at(number), stage.width) {
  for (std::int64_t i = 0; i < stage.layers; ++i)
    layers.emplace_back(encoder.at("block").at(number).at(i), stage);
}

at::Tensor Segformer::EncoderStage::forward(const at::Tensor& map) const {
  const at::Tensor patches = proj(map);
  const std::int64_t height = patches.size(2), width = patches.size(3);
  at::Tensor x = patch_norm(to_tokens(patches));
  for (const EncoderLayer& layer : layers) x = layer.forward(x, height, width);
  return to_map(norm(x), height, width);
}

Segformer::Segformer(const nn::WeightSource& source, const SegformerConfig& c)
    : config_(c),
      fuse_norm_(source.at("decode_head.batch_norm"), c.decoder_width),
      classifier_(source.at("decode_head.classifier"), c.decoder_width, c.classes, 1) {
  const nn::WeightSource encoder = source.at("segformer.encoder");
  const nn::WeightSource head = source.at("decode_head");
  std::int64_t in = 3;
  for (std::size_t i = 0; i < c.stages.size(); ++i) {
    const auto number = static_cast<std::int64_t>(i);
    stages_.emplace_back(encoder, c.stages[i], number, in);
    in = c.stages[i].width;
    linear_c_.emplace_back(head.at("linear_c").at(number).at("proj"), in, c.decoder_width);
  }
  const auto all = static_cast<std::int64_t>(c.stages.size()) * c.decoder_width;
  fuse_weight_ = head.at("linear_fuse").get("weight", {c.decoder_width, all, 1, 1});
}

at::Tensor Segformer::forward(const at::Tensor& pixels) const {
  std::vector<at::Tensor> maps;
  at::Tensor x = pixels;
  for (const EncoderStage& stage : stages_) maps.push_back(x = stage.forward(x));

  const std::int64_t height = maps.front().size(2), width = maps.front().size(3);
  std::vector<at::Tensor> decoded;  // the coarsest first
  for (std::size_t i = maps.size(); i-- > 0;) {
    const at::Tensor map =
        to_map(linear_c_[i](to_tokens(maps[i])), maps[i].size(2), maps[i].size(3));
    decoded.push_back(at::upsample_bilinear2d(map, {height, width}, /*align_corners=*/false));
  }
  return classifier_(at::relu(fuse_norm_(at::conv2d(at::cat(decoded, 1), fuse_weight_))));
}

}  // namespace ringlet::models
