#include "ringlet/models/text/clip_text.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/sigmoid.h>

#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

at::Tensor activate(const std::string& name, const at::Tensor& x) {
  if (name == "quick_gelu") return x * at::sigmoid(1.702 * x);
  return at::gelu(x);
}

}  // namespace

ClipTextConfig ClipTextConfig::from_json(const Json& json, const std::string& where) {
  ClipTextConfig c;
  c.vocab_size = json_value(json, "vocab_size", c.vocab_size, where);
  c.hidden_size = json_value(json, "hidden_size", c.hidden_size, where);
  c.intermediate_size = json_value(json, "intermediate_size", c.intermediate_size, where);
  c.projection_dim = json_value(json, "projection_dim", c.projection_dim, where);
  c.num_hidden_layers = json_value(json, "num_hidden_layers", c.num_hidden_layers, where);
  c.num_attention_heads = json_value(json, "num_attention_heads", c.num_attention_heads, where);
  c.max_position_embeddings =
      json_value(json, "max_position_embeddings", c.max_position_embeddings, where);
  c.hidden_act = json_value(json, "hidden_act", c.hidden_act, where);
  c.layer_norm_eps = json_value(json, "layer_norm_eps", c.layer_norm_eps, where);
  c.eos_token_id = json_value(json, "eos_token_id", c.eos_token_id, where);
  const auto architectures = json_value(json, "architectures", std::vector<std::string>{}, where);
  for (const std::string& name : architectures)
    if (name == "CLIPTextModelWithProjection") c.with_projection = true;
  if (c.hidden_act != "quick_gelu" && c.hidden_act != "gelu")
    throw Error(ErrorCode::unsupported, where, "hidden_act \"" + c.hidden_act + "\" is not known",
                "CLIP text encoders use \"quick_gelu\" or \"gelu\"");
  if (c.num_attention_heads <= 0 || c.hidden_size <= 0 ||
      c.hidden_size % c.num_attention_heads != 0)
    throw Error(ErrorCode::bad_format, where,
                "hidden_size must be a positive multiple of num_attention_heads");
  return c;
}

ClipTextConfig ClipTextConfig::from_clip_json(const Json& json, const std::string& where) {
  Json part = json_value(json, "text_config", Json::object(), where);
  part["projection_dim"] = json_value<std::int64_t>(json, "projection_dim", 512, where);
  part["architectures"] = {"CLIPTextModelWithProjection"};
  // In CLIP's own files the text part keeps the class's old default, and the largest id ends a
  // text.
  if (!part.contains("eos_token_id")) part["eos_token_id"] = 2;
  return from_json(part, where);
}

ClipTextModel::EncoderLayer::EncoderLayer(const nn::WeightSource& s, const ClipTextConfig& c)
    : heads(c.num_attention_heads),
      activation(c.hidden_act),
      layer_norm1(s.at("layer_norm1"), c.hidden_size, c.layer_norm_eps),
      layer_norm2(s.at("layer_norm2"), c.hidden_size, c.layer_norm_eps),
      q_proj(s.at("self_attn").at("q_proj"), c.hidden_size, c.hidden_size),
      k_proj(s.at("self_attn").at("k_proj"), c.hidden_size, c.hidden_size),
      v_proj(s.at("self_attn").at("v_proj"), c.hidden_size, c.hidden_size),
      out_proj(s.at("self_attn").at("out_proj"), c.hidden_size, c.hidden_size),
      fc1(s.at("mlp").at("fc1"), c.hidden_size, c.intermediate_size),
      fc2(s.at("mlp").at("fc2"), c.intermediate_size, c.hidden_size) {}

at::Tensor ClipTextModel::EncoderLayer::forward(const at::Tensor& x) const {
  const at::Tensor h = layer_norm1(x);
  const at::Tensor attended =
      nn::multi_head_attention(q_proj(h), k_proj(h), v_proj(h), heads, /*causal=*/true);
  const at::Tensor y = x + out_proj(attended);
  return y + fc2(activate(activation, fc1(layer_norm2(y))));
}

ClipTextModel::ClipTextModel(const nn::WeightSource& source, const ClipTextConfig& config)
    : config_(config),
      token_embedding_(source.at("text_model").at("embeddings").at("token_embedding"),
                       config.vocab_size, config.hidden_size),
      position_embedding_(source.at("text_model").at("embeddings").at("position_embedding"),
                          config.max_position_embeddings, config.hidden_size),
      final_layer_norm_(source.at("text_model").at("final_layer_norm"), config.hidden_size,
                        config.layer_norm_eps) {
  const nn::WeightSource layers = source.at("text_model").at("encoder").at("layers");
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i)
    layers_.emplace_back(layers.at(i), config);
  if (config.with_projection)
    text_projection_.emplace(source.at("text_projection"), config.hidden_size,
                             config.projection_dim, /*bias=*/false);
}

at::Tensor ClipTextModel::end_of_text_positions(const at::Tensor& ids) const {
  // Configs written before transformers PR #24773 hold a wrong eos_token_id of 2; there the
  // end-of-text token is the largest id.
  if (config_.eos_token_id == 2) return ids.argmax(-1);
  return ids.eq(config_.eos_token_id).to(at::kInt).argmax(-1);
}

std::int64_t ClipTextModel::add_tokens(const at::Tensor& rows) {
  token_embedding_.append(rows);
  const std::int64_t first = config_.vocab_size;
  config_.vocab_size += rows.size(0);
  return first;
}

ClipTextOutput ClipTextModel::forward(const at::Tensor& ids) const {
  if (ids.size(1) > config_.max_position_embeddings)
    throw Error(ErrorCode::invalid_argument, "text encoder",
                std::to_string(ids.size(1)) + " tokens, but the model has " +
                    std::to_string(config_.max_position_embeddings) + " positions");
  const at::Tensor positions = at::arange(ids.size(1), ids.options());

  ClipTextOutput out;
  at::Tensor x = token_embedding_(ids) + position_embedding_(positions);
  out.hidden_states.push_back(x);
  for (const EncoderLayer& layer : layers_) {
    x = layer.forward(x);
    out.hidden_states.push_back(x);
  }
  out.last_hidden_state = final_layer_norm_(x);

  const at::Tensor rows = at::arange(ids.size(0), ids.options());
  out.pooled = out.last_hidden_state.index({rows, end_of_text_positions(ids)});
  if (text_projection_) out.pooled = (*text_projection_)(out.pooled);
  return out;
}

}  // namespace ringlet::models
