#include "ringlet/models/vision/vision_transformer.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_bicubic2d.h>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

using Kind = VisionConfig::Kind;

/// What the three checkpoints call the same things.
struct Names {
  const char *layers, *norm1, *norm2, *query, *key, *value, *output, *inner, *outer, *last_norm;
};

Names names_of(const VisionConfig& c) {
  constexpr const char *kQuery = "attention.attention.query", *kKey = "attention.attention.key",
                       *kValue = "attention.attention.value", *kOutput = "attention.output.dense";
  if (c.kind == Kind::vit)
    return {"encoder.layer", "layernorm_before",   "layernorm_after", kQuery,     kKey, kValue,
            kOutput,         "intermediate.dense", "output.dense",    "layernorm"};
  if (c.kind == Kind::dinov2)
    return {"encoder.layer",
            "norm1",
            "norm2",
            kQuery,
            kKey,
            kValue,
            kOutput,
            c.gated ? "mlp.weights_in" : "mlp.fc1",
            c.gated ? "mlp.weights_out" : "mlp.fc2",
            "layernorm"};
  return {"encoder.layers",   "layer_norm1",      "layer_norm2",        "self_attn.q_proj",
          "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1",
          "mlp.fc2",          "post_layernorm"};
}

nn::WeightSource top(const nn::WeightSource& source, const VisionConfig& c) {
  return c.kind == Kind::clip ? source.at("vision_model") : source;
}

at::Tensor class_token(const nn::WeightSource& s, const VisionConfig& c) {
  const nn::Init init = nn::Init::normal(0.02);
  if (c.kind == Kind::clip)
    return s.at("embeddings").get("class_embedding", {c.width}, init).reshape({1, 1, c.width});
  return s.at("embeddings").get("cls_token", {1, 1, c.width}, init);
}

at::Tensor position_table(const nn::WeightSource& s, const VisionConfig& c) {
  const std::int64_t side = c.image_size / c.patch, count = side * side + 1;
  const nn::Init init = nn::Init::normal(0.02);
  if (c.kind == Kind::clip)
    return s.at("embeddings.position_embedding").get("weight", {count, c.width}, init).unsqueeze(0);
  return s.at("embeddings").get("position_embeddings", {1, count, c.width}, init);
}

/// Tensors that checkpoints hold and features do not need.
void take_unused(const nn::WeightSource& s, const VisionConfig& c) {
  const auto take = [&](const nn::WeightSource& scope, const char* name, const nn::Shape& shape) {
    if (scope.has(name)) scope.get(name, shape);
  };
  take(s.at("pooler.dense"), "weight", {c.width, c.width});
  take(s.at("pooler.dense"), "bias", {c.width});
  take(s.at("embeddings"), "mask_token", {1, c.width});
}

}  // namespace

VisionConfig VisionConfig::from_json(const Json& json, const std::string& where) {
  const std::string type = required_network_type(json, where);
  const Json& part =
      type == "clip" && json.contains("vision_config") ? json["vision_config"] : json;
  VisionConfig c;
  if (type == "dinov2") c.kind = Kind::dinov2;
  if (type == "clip" || type == "clip_vision_model") c.kind = Kind::clip;
  if (type != "vit" && c.kind == Kind::vit)
    throw Error(ErrorCode::unsupported, where, "model_type \"" + type + "\" is not known",
                "ringlet supports vit (DINO), dinov2 and clip");
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(part, key, fallback, where);
  };
  c.width = number("hidden_size", c.width);
  c.layers = number("num_hidden_layers", c.layers);
  c.heads = number("num_attention_heads", c.heads);
  c.patch = number("patch_size", c.kind == Kind::clip ? 32 : c.kind == Kind::dinov2 ? 14 : 16);
  c.image_size = number("image_size", c.image_size);
  c.inner_width = c.kind == Kind::dinov2 ? c.width * number("mlp_ratio", 4)
                                         : number("intermediate_size", 4 * c.width);
  c.gated = json_value(part, "use_swiglu_ffn", false, where);
  constexpr double kUsual[] = {1e-12, 1e-6, 1e-5};
  c.epsilon = json_value(part, "layer_norm_eps", kUsual[static_cast<int>(c.kind)], where);
  if (!json_value(part, "qkv_bias", true, where))
    throw Error(ErrorCode::unsupported, where, "its attention has no biases (qkv_bias is false)");
  c.activation = json_value<std::string>(part, "hidden_act",
                                         c.kind == Kind::clip ? "quick_gelu" : "gelu", where);
  const auto classes = json_value(json, "architectures", std::vector<std::string>{}, where);
  const bool projected = std::ranges::find(classes, "CLIPVisionModel") == classes.end();
  if (c.kind == Kind::clip && projected)
    c.projection = json_value<std::int64_t>(json, "projection_dim", 512, where);
  if (c.activation != "gelu" && c.activation != "quick_gelu")
    throw Error(ErrorCode::unsupported, where, "hidden_act \"" + c.activation + "\" is not known",
                "these networks use \"gelu\" or \"quick_gelu\"");
  if (c.width % c.heads != 0 || c.image_size % c.patch != 0)
    throw Error(ErrorCode::bad_format, where,
                "hidden_size must be a multiple of the heads, image_size one of the patches");
  if (c.gated) {
    constexpr std::int64_t kUnit = 8;
    c.inner_width = (c.inner_width * 2 / 3 + kUnit - 1) / kUnit * kUnit;
  }
  return c;
}

VisionTransformer::EncoderLayer::EncoderLayer(const nn::WeightSource& s, const VisionConfig& c)
    : heads(c.heads),
      activation(c.activation),
      gated(c.gated),
      norm1(s.at(names_of(c).norm1), c.width, c.epsilon),
      norm2(s.at(names_of(c).norm2), c.width, c.epsilon),
      query(s.at(names_of(c).query), c.width, c.width),
      key(s.at(names_of(c).key), c.width, c.width),
      value(s.at(names_of(c).value), c.width, c.width),
      output(s.at(names_of(c).output), c.width, c.width),
      inner(s.at(names_of(c).inner), c.width, c.gated ? 2 * c.inner_width : c.inner_width),
      outer(s.at(names_of(c).outer), c.inner_width, c.width) {
  if (c.kind != Kind::dinov2) return;
  scale1 = s.at("layer_scale1").get("lambda1", {c.width}, nn::Init::constant(1.0));
  scale2 = s.at("layer_scale2").get("lambda1", {c.width}, nn::Init::constant(1.0));
}

at::Tensor VisionTransformer::EncoderLayer::feed_forward(const at::Tensor& x) const {
  const at::Tensor h = inner(x);
  if (gated) {
    const auto halves = h.chunk(2, -1);
    return outer(at::silu(halves[0]) * halves[1]);
  }
  return outer(activation == "gelu" ? at::gelu(h) : h * at::sigmoid(1.702 * h));
}

at::Tensor VisionTransformer::EncoderLayer::forward(const at::Tensor& x) const {
  const auto scaled = [](const at::Tensor& y, const at::Tensor& scale) {
    return scale.defined() ? y * scale.to(y.scalar_type()) : y;
  };
  const at::Tensor h = norm1(x);
  const at::Tensor attended = nn::multi_head_attention(query(h), key(h), value(h), heads);
  const at::Tensor y = x + scaled(output(attended), scale1);
  return y + scaled(feed_forward(norm2(y)), scale2);
}

VisionTransformer::VisionTransformer(const nn::WeightSource& source, const VisionConfig& c)
    : config_(c),
      dtype_(source.options().dtype),
      class_token_(class_token(top(source, c), c)),
      positions_(position_table(top(source, c), c)),
      last_norm_(top(source, c).at(names_of(c).last_norm), c.width, c.epsilon) {
  const nn::WeightSource s = top(source, c);
  const nn::Init init = nn::Init::normal(0.02);
  const nn::WeightSource patches =
      s.at(c.kind == Kind::clip ? "embeddings.patch_embedding"
                                : "embeddings.patch_embeddings.projection");
  patch_weight_ = patches.get("weight", {c.width, 3, c.patch, c.patch}, init);
  if (c.kind == Kind::clip)
    first_norm_.emplace(s.at("pre_layrnorm"), c.width, c.epsilon);  // so misspelt in every file
  else
    patch_bias_ = patches.get("bias", {c.width});
  for (std::int64_t i = 0; i < c.layers; ++i)
    layers_.emplace_back(s.at(names_of(c).layers).at(i), c);
  if (c.projection > 0)
    projection_.emplace(source.at("visual_projection"), c.width, c.projection, /*bias=*/false);
  take_unused(s, c);
}

at::Tensor VisionTransformer::positions(std::int64_t rows, std::int64_t columns) const {
  const std::int64_t side = config_.image_size / config_.patch;
  if (rows == side && columns == side) return positions_;
  const at::Tensor grid =
      positions_.slice(1, 1).reshape({1, side, side, config_.width}).permute({0, 3, 1, 2});
  const at::Tensor fitted = at::upsample_bicubic2d(grid.to(at::kFloat), {rows, columns}, false);
  return at::cat({positions_.slice(1, 0, 1), fitted.to(positions_.scalar_type())
                                                 .permute({0, 2, 3, 1})
                                                 .reshape({1, rows * columns, config_.width})},
                 1);
}

at::Tensor VisionTransformer::features(const at::Tensor& pixels) const {
  if (pixels.size(2) % config_.patch != 0 || pixels.size(3) % config_.patch != 0)
    throw Error(ErrorCode::invalid_argument, "vision transformer",
                "pictures of " + std::to_string(pixels.size(3)) + "x" +
                    std::to_string(pixels.size(2)) + " do not split into patches of " +
                    std::to_string(config_.patch));
  const at::Tensor bias = patch_bias_.defined() ? patch_bias_.to(dtype_) : patch_bias_;
  const at::Tensor patches = at::conv2d(pixels.to(dtype_), patch_weight_.to(dtype_), bias,
                                        config_.patch);  // [B, width, rows, columns]
  at::Tensor x = at::cat({class_token_.to(dtype_).expand({pixels.size(0), -1, -1}),
                          patches.flatten(2).transpose(1, 2)},
                         1) +
                 positions(patches.size(2), patches.size(3)).to(dtype_);
  if (first_norm_) x = (*first_norm_)(x);
  for (const EncoderLayer& layer : layers_) x = layer.forward(x);
  const at::Tensor pooled = last_norm_(x.select(1, 0));
  return projection_ ? (*projection_)(pooled) : pooled;
}

VisionClassifier::VisionClassifier(const nn::WeightSource& source, const VisionConfig& config,
                                   std::int64_t classes)
    : network_(source.at("vit"), config),
      classifier_(source.at("classifier"), config.width, classes) {}

}  // namespace ringlet::models
