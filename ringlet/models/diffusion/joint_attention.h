// Attention of the tokens of a picture together with those of its text (Esser et al. 2024, "Scaling
// Rectified Flow Transformers for High-Resolution Image Synthesis", §4; FLUX).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/modulation.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/rms_norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct HeadsConfig {
  std::int64_t width;  ///< of the tokens
  std::int64_t heads;
  std::int64_t head_width;
  bool rms_norm;  ///< of every query and key, over the head's width

  std::int64_t inner_width() const { return heads * head_width; }
};

/// Queries, keys and values of some tokens as their layers give them, each [B, N, width].
struct Heads {
  at::Tensor query;
  at::Tensor key;
  at::Tensor value;
};

/// Three projections with bias and the norms of the first two, by the names of their layers.
class HeadProjections {
 public:
  struct Names {
    std::string_view query, key, value, query_norm, key_norm;
  };
  static constexpr Names kOwn = {"to_q", "to_k", "to_v", "norm_q", "norm_k"};
  static constexpr Names kAdded = {"add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q",
                                   "norm_added_k"};

  HeadProjections(const nn::WeightSource& source, const HeadsConfig& config, const Names& names);

  Heads operator()(const NormedTokens& tokens) const;
  Heads operator()(const at::Tensor& normed) const;

  /// A query or a key as attention takes it, [B, N, heads, head_width]: normed where there are
  /// norms.
  at::Tensor normed_query(const at::Tensor& query) const { return split(query, query_norm_); }
  at::Tensor normed_key(const at::Tensor& key) const { return split(key, key_norm_); }
  bool has_norms() const { return query_norm_.has_value(); }
  std::int64_t heads() const { return heads_; }

 private:
  at::Tensor split(const at::Tensor& x, const std::optional<nn::RmsNorm>& norm) const;

  std::int64_t heads_;
  nn::Linear query_, key_, value_;
  std::optional<nn::RmsNorm> query_norm_, key_norm_;
};

/// The heads of a stream's tokens and whose they are.
struct StreamHeads {
  const HeadProjections& projections;
  Heads heads;
};

/// Every head's attention over the tokens of all streams, one stream after the other ->
/// [B, N, heads * head_width]. `rotations` (rotary.h) of all tokens turn queries and keys;
/// undefined = no positions. Queries and keys that are normed are kept as their layers gave them
/// alone: norms and rotations are computed again in the backward pass.
at::Tensor attend(const std::vector<StreamHeads>& streams, const at::Tensor& rotations);

/// Tokens among themselves: projections, attention and to_out.0.
class SelfAttention {
 public:
  SelfAttention(const nn::WeightSource& source, const HeadsConfig& config);
  at::Tensor operator()(const NormedTokens& x) const;

 private:
  HeadProjections projections_;
  nn::Linear to_out_;
};

/// Two streams with projections of their own and one attention.
class JointAttention {
 public:
  /// `context_pre_only`: the context is attended to, and nothing is made of it.
  JointAttention(const nn::WeightSource& source, const HeadsConfig& config, bool context_pre_only);

  /// x [B, N, width], context [B, T, width] -> both again; the context undefined where it is
  /// context_pre_only. `rotations` are those of the context's tokens, then those of x.
  std::pair<at::Tensor, at::Tensor> operator()(const NormedTokens& x, const NormedTokens& context,
                                               const at::Tensor& rotations) const;

 private:
  HeadProjections own_, added_;
  nn::Linear to_out_;
  std::optional<nn::Linear> to_add_out_;
};

}  // namespace ringlet::models
