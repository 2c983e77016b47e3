// T5's encoder (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
// Text-to-Text Transformer") in version 1.1, with gated GELU (Shazeer 2020): T5EncoderModel of
// transformers, whose names tensors have.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/rms_norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct T5Config {
  std::int64_t vocabulary = 32128;
  std::int64_t width = 4096;         ///< "d_model"
  std::int64_t inner_width = 10240;  ///< "d_ff", of the feed-forward layers
  std::int64_t layers = 24;
  std::int64_t heads = 64;
  std::int64_t head_width = 64;  ///< "d_kv"
  std::int64_t buckets = 32;     ///< "relative_attention_num_buckets"
  std::int64_t farthest = 128;   ///< "relative_attention_max_distance"
  double epsilon = 1e-6;

  /// Reads a text_encoder_3/config.json. Throws Error(bad_format | unsupported).
  static T5Config from_json(const Json& json, const std::string& where);
};

/// In which bucket a token sees another that is `distance` [...] tokens (int64) after it: half of
/// the buckets for each direction, of these half for one distance each and the rest for ranges that
/// grow up to `farthest`.
at::Tensor relative_position_bucket(const at::Tensor& distance, std::int64_t buckets,
                                    std::int64_t farthest);

class T5Encoder {
 public:
  T5Encoder(const nn::WeightSource& source, const T5Config& config);

  /// ids [B, T] int64 of any length T -> [B, T, width]. `seen`, bool [B, T], is false for tokens
  /// that no other attends to; undefined = all are seen, as Stable Diffusion 3 and FLUX have it.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& seen = {}) const;

  const T5Config& config() const { return config_; }

 private:
  struct Block {
    Block(const nn::WeightSource& source, const T5Config& config);
    /// `bias` [B or 1, heads, T, T] is added to the scores.
    at::Tensor forward(const at::Tensor& x, const at::Tensor& bias) const;
    at::Tensor compute(const at::Tensor& x, const at::Tensor& bias) const;

    std::int64_t heads;
    nn::RmsNorm attention_norm;
    nn::Linear q, k, v, o;
    nn::RmsNorm feed_forward_norm;
    nn::Linear wi_0, wi_1, wo;
  };

  at::Tensor score_bias(const at::Tensor& ids, const at::Tensor& seen) const;

  T5Config config_;
  nn::EmbeddingTable shared_;
  nn::EmbeddingTable relative_attention_bias_;  // [buckets, heads]
  std::vector<Block> blocks_;
  nn::RmsNorm final_layer_norm_;
};

}  // namespace ringlet::models
