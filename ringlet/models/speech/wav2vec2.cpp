#include "ringlet/models/speech/wav2vec2.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/arange.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/ctc_loss.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

nn::WeightSource wav2vec2_top(const nn::WeightSource& source) { return source.at("wav2vec2"); }

nn::WeightSource position_source(const nn::WeightSource& source) {
  return wav2vec2_top(source).at("encoder.pos_conv_embed.conv");
}

/// Weight norm's two halves, by the names of older and newer files.
at::Tensor position_half(const nn::WeightSource& source, bool gain, const nn::Shape& shape,
                         const nn::Init& init) {
  const nn::WeightSource s = position_source(source);
  if (s.at("parametrizations.weight").has("original0"))
    return s.at("parametrizations.weight").get(gain ? "original0" : "original1", shape, init);
  return s.get(gain ? "weight_g" : "weight_v", shape, init);
}

}  // namespace

Wav2Vec2Config Wav2Vec2Config::from_json(const Json& json, const std::string& where) {
  const std::string type = required_network_type(json, where);
  if (type != "wav2vec2")
    throw Error(ErrorCode::unsupported, where, "model_type \"" + type + "\" is not known",
                "speech is read by wav2vec2");
  Wav2Vec2Config c;
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  c.channels = json_value(json, "conv_dim", c.channels, where);
  c.kernels = json_value(json, "conv_kernel", c.kernels, where);
  c.strides = json_value(json, "conv_stride", c.strides, where);
  const auto positive = [](const auto& list) {
    return !list.empty() && std::ranges::min(list) > 0;
  };
  if (c.channels.size() != c.kernels.size() || c.kernels.size() != c.strides.size() ||
      !positive(c.channels) || !positive(c.kernels) || !positive(c.strides))
    throw Error(
        ErrorCode::bad_format, where,
        "conv_dim, conv_kernel and conv_stride must hold the same number of positive values each");
  c.convolution_bias = json_value(json, "conv_bias", false, where);
  const auto norm = json_value<std::string>(json, "feat_extract_norm", "group", where);
  const auto activation = json_value<std::string>(json, "hidden_act", "gelu", where);
  if ((norm != "group" && norm != "layer") || activation != "gelu")
    throw Error(ErrorCode::unsupported, where,
                "feat_extract_norm \"" + norm + "\" with hidden_act \"" + activation + "\"",
                "ringlet reads \"group\" and \"layer\" with \"gelu\"");
  c.layer_norms = norm == "layer";
  if (json_value<std::string>(json, "feat_extract_activation", "gelu", where) != "gelu" ||
      json_value(json, "add_adapter", false, where) ||
      !json_value(json, "adapter_attn_dim", Json(), where).is_null())
    throw Error(ErrorCode::unsupported, where,
                "has built-in adapters, or feat_extract_activation is not \"gelu\"",
                "ringlet reads wav2vec 2.0 as facebook/wav2vec2-base-960h and -large-960h-lv60");
  c.norm_first = json_value(json, "do_stable_layer_norm", false, where);
  c.width = number("hidden_size", c.width);
  c.layers = number("num_hidden_layers", c.layers);
  c.heads = number("num_attention_heads", c.heads);
  c.inner_width = number("intermediate_size", c.inner_width);
  c.position_kernel = number("num_conv_pos_embeddings", c.position_kernel);
  c.position_groups = number("num_conv_pos_embedding_groups", c.position_groups);
  c.vocabulary = number("vocab_size", c.vocabulary);
  c.blank = json_value(json, "pad_token_id", c.blank, where);
  c.epsilon = json_value(json, "layer_norm_eps", c.epsilon, where);
  if (c.width % c.heads != 0 || c.width % c.position_groups != 0)
    throw Error(ErrorCode::bad_format, where,
                "hidden_size must be a multiple of the heads and of the groups");
  if (c.blank < 0 || c.blank >= c.vocabulary)
    throw Error(ErrorCode::bad_format, where, "pad_token_id is not a token");
  return c;
}

std::int64_t Wav2Vec2Config::frames(std::int64_t samples) const {
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    if (samples < kernels[i]) return 0;
    samples = (samples - kernels[i]) / strides[i] + 1;
  }
  return samples;
}

Wav2Vec2::EncoderLayer::EncoderLayer(const nn::WeightSource& s, const Wav2Vec2Config& c)
    : heads(c.heads),
      norm_first(c.norm_first),
      query(s.at("attention.q_proj"), c.width, c.width),
      key(s.at("attention.k_proj"), c.width, c.width),
      value(s.at("attention.v_proj"), c.width, c.width),
      output(s.at("attention.out_proj"), c.width, c.width),
      norm(s.at("layer_norm"), c.width, c.epsilon),
      inner(s.at("feed_forward.intermediate_dense"), c.width, c.inner_width),
      outer(s.at("feed_forward.output_dense"), c.inner_width, c.width),
      last_norm(s.at("final_layer_norm"), c.width, c.epsilon) {}

at::Tensor Wav2Vec2::EncoderLayer::attended(const at::Tensor& x, const at::Tensor& seen) const {
  return output(
      nn::multi_head_attention(query(x), key(x), value(x), heads, /*causal=*/false, seen));
}

at::Tensor Wav2Vec2::EncoderLayer::forward(const at::Tensor& x, const at::Tensor& seen) const {
  if (norm_first) {
    const at::Tensor y = x + attended(norm(x), seen);
    return y + outer(at::gelu(inner(last_norm(y))));
  }
  const at::Tensor y = norm(x + attended(x, seen));
  return last_norm(y + outer(at::gelu(inner(y))));
}

Wav2Vec2::Wav2Vec2(const nn::WeightSource& source, const Wav2Vec2Config& c)
    : config_(c),
      dtype_(source.options().dtype),
      projection_norm_(wav2vec2_top(source).at("feature_projection.layer_norm"), c.channels.back(),
                       c.epsilon),
      projection_(wav2vec2_top(source).at("feature_projection.projection"), c.channels.back(),
                  c.width),
      position_gain_(
          position_half(source, true, {1, 1, c.position_kernel}, nn::Init::constant(1.0))),
      position_direction_(position_half(source, false,
                                        {c.width, c.width / c.position_groups, c.position_kernel},
                                        nn::Init::normal(1.0))),
      position_bias_(position_source(source).get("bias", {c.width}, nn::Init::constant(0.0))),
      encoder_norm_(wav2vec2_top(source).at("encoder.layer_norm"), c.width, c.epsilon),
      letters_(source.at("lm_head"), c.width, c.vocabulary) {
  std::int64_t in = 1;
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    const nn::WeightSource s =
        wav2vec2_top(source).at("feature_extractor.conv_layers").at(static_cast<std::int64_t>(i));
    const std::int64_t out = c.channels[i];
    const double deviation = std::sqrt(2.0 / static_cast<double>(in * c.kernels[i]));
    Convolution convolution{
        s.at("conv").get("weight", {out, in, c.kernels[i]}, nn::Init::normal(deviation)),
        {},
        {},
        {}};
    if (c.convolution_bias)
      convolution.bias = s.at("conv").get("bias", {out}, nn::Init::constant(0.0));
    if (c.layer_norms || i == 0) {
      convolution.norm_weight = s.at("layer_norm").get("weight", {out}, nn::Init::constant(1.0));
      convolution.norm_bias = s.at("layer_norm").get("bias", {out}, nn::Init::constant(0.0));
    }
    convolutions_.push_back(convolution);
    in = out;
  }
  for (std::int64_t i = 0; i < c.layers; ++i)
    layers_.emplace_back(wav2vec2_top(source).at("encoder.layers").at(i), c);
  if (wav2vec2_top(source).has("masked_spec_embed"))
    wav2vec2_top(source).get("masked_spec_embed", {c.width});
}

/// [B, samples] -> [B, frames, channels].
at::Tensor Wav2Vec2::heard(const at::Tensor& sound) const {
  constexpr double kEpsilon = 1e-5;
  const auto like = [&](const at::Tensor& parameter) {
    return parameter.defined() ? parameter.to(dtype_) : parameter;
  };
  at::Tensor x = sound.unsqueeze(1).to(dtype_);
  for (std::size_t i = 0; i < convolutions_.size(); ++i) {
    const Convolution& c = convolutions_[i];
    x = at::conv1d(x, like(c.weight), like(c.bias), config_.strides[i]);
    if (config_.layer_norms)
      x = at::layer_norm(x.transpose(1, 2), c.norm_weight.sizes(), like(c.norm_weight),
                         like(c.norm_bias), kEpsilon)
              .transpose(1, 2);
    else if (c.norm_weight.defined())
      x = at::group_norm(x, x.size(1), like(c.norm_weight), like(c.norm_bias), kEpsilon);
    x = at::gelu(x);
  }
  return x.transpose(1, 2);
}

at::Tensor Wav2Vec2::positions(const at::Tensor& x) const {
  const at::Tensor length = position_direction_.norm(2, {0, 1}, /*keepdim=*/true);
  const at::Tensor weight = position_gain_ * (position_direction_ / length);
  at::Tensor y = at::conv1d(x.transpose(1, 2), weight.to(dtype_), position_bias_.to(dtype_), 1,
                            config_.position_kernel / 2, 1, config_.position_groups);
  if (config_.position_kernel % 2 == 0) y = y.slice(2, 0, -1);
  return at::gelu(y).transpose(1, 2);
}

/// [B, 1, 1, T] for attention: which of T frames belong to each sound.
at::Tensor Wav2Vec2::seen_frames(const std::vector<std::int64_t>& lengths, std::int64_t T) const {
  std::vector<std::int64_t> frames;
  for (const std::int64_t length : lengths) frames.push_back(config_.frames(length));
  const at::Tensor count = at::tensor(frames, at::kLong).view({-1, 1, 1, 1});
  return at::arange(T, at::kLong).view({1, 1, 1, T}).lt(count);
}

void Wav2Vec2::check(const at::Tensor& sound, const std::vector<std::int64_t>& lengths) const {
  const auto refuse = [](const std::string& what, const std::string& hint = {}) {
    throw Error(ErrorCode::invalid_argument, "wav2vec2", what, hint);
  };
  if (sound.dim() != 2 || sound.size(0) != static_cast<std::int64_t>(lengths.size()) ||
      lengths.empty())
    refuse("the numbers of lengths and sounds differ");
  for (const std::int64_t length : lengths) {
    if (length > sound.size(1))
      refuse("the length " + std::to_string(length) + " is beyond the " +
             std::to_string(sound.size(1)) + " samples of the sounds");
    if (config_.frames(length) == 0)
      refuse("a sound of " + std::to_string(length) + " samples is too short",
             "the network needs some hundred samples");
  }
}

at::Tensor Wav2Vec2::forward(const at::Tensor& sound,
                             const std::vector<std::int64_t>& lengths) const {
  check(sound, lengths);
  at::Tensor x = projection_(projection_norm_(heard(sound)));
  at::Tensor seen;
  if (config_.layer_norms) {
    seen = seen_frames(lengths, x.size(1)).to(x.device());
    x = x * seen.view({x.size(0), x.size(1), 1});
  }
  x = x + positions(x);
  if (!config_.norm_first) x = encoder_norm_(x);
  for (const EncoderLayer& layer : layers_) x = layer.forward(x, seen);
  if (config_.norm_first) x = encoder_norm_(x);
  return letters_(x);
}

at::Tensor ctc_loss(const at::Tensor& scores, const std::vector<std::int64_t>& frames,
                    const std::vector<std::vector<std::int64_t>>& letters, std::int64_t blank) {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "CTC loss", what);
  };
  const std::size_t count = scores.dim() == 3 ? static_cast<std::size_t>(scores.size(0)) : 0;
  if (count == 0 || frames.size() != count || letters.size() != count)
    refuse("the numbers of texts, lengths and sounds differ");
  // LibTorch reads the scores of any letter without a look at its number.
  const auto is_letter = [&](std::int64_t id) { return id >= 0 && id < scores.size(2); };
  if (!is_letter(blank)) refuse("the blank is not in the vocabulary");
  for (const std::int64_t length : frames)
    if (length < 1 || length > scores.size(1))
      refuse(std::to_string(length) + " frames of " + std::to_string(scores.size(1)));
  std::vector<std::int64_t> all, lengths;
  for (const auto& text : letters) {
    for (const std::int64_t id : text)
      if (!is_letter(id) || id == blank)
        refuse("letter " + std::to_string(id) + " is not one of " + std::to_string(scores.size(2)));
    all.insert(all.end(), text.begin(), text.end());
    lengths.push_back(static_cast<std::int64_t>(text.size()));
  }
  constexpr std::int64_t kMean = 1;
  return at::ctc_loss(at::log_softmax(scores.to(at::kFloat), -1).transpose(0, 1),
                      at::tensor(all, at::kLong).to(scores.device()), at::IntArrayRef(frames),
                      at::IntArrayRef(lengths), blank, kMean, /*zero_infinity=*/true);
}

std::vector<std::int64_t> ctc_decode(const at::Tensor& scores, std::int64_t blank) {
  if (scores.dim() != 2)
    throw Error(ErrorCode::invalid_argument, "CTC", "scores of one sound are decoded at a time");
  const at::Tensor best = scores.argmax(-1).to(at::kCPU).contiguous();
  std::vector<std::int64_t> letters;
  std::int64_t before = blank;
  for (std::int64_t i = 0; i < best.numel(); ++i) {
    const std::int64_t letter = best.const_data_ptr<std::int64_t>()[i];
    if (letter != before && letter != blank) letters.push_back(letter);
    before = letter;
  }
  return letters;
}

}  // namespace ringlet::models
