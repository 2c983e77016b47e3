#include "ringlet/models/diffusion/joint_attention.h"

#include <ATen/ops/cat.h>

#include "ringlet/models/diffusion/rotary.h"
#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

constexpr double kHeadNormEpsilon = 1e-6;

/// One sequence: the tokens of `first`, then those of `second`.
Heads joined(const Heads& first, const Heads& second) {
  return {.query = at::cat({first.query, second.query}, 1),
          .key = at::cat({first.key, second.key}, 1),
          .value = at::cat({first.value, second.value}, 1)};
}

}  // namespace

HeadProjections::HeadProjections(const nn::WeightSource& s, const HeadsConfig& c, const Names& n)
    : heads_(c.heads),
      query_(s.at(n.query), c.width, c.inner_width()),
      key_(s.at(n.key), c.width, c.inner_width()),
      value_(s.at(n.value), c.width, c.inner_width()) {
  if (c.rms_norm) {
    query_norm_.emplace(s.at(n.query_norm), c.head_width, kHeadNormEpsilon);
    key_norm_.emplace(s.at(n.key_norm), c.head_width, kHeadNormEpsilon);
  }
}

Heads HeadProjections::operator()(const at::Tensor& tokens) const {
  const auto split = [this](const at::Tensor& x) { return x.unflatten(-1, {heads_, -1}); };
  Heads heads{
      .query = split(query_(tokens)), .key = split(key_(tokens)), .value = split(value_(tokens))};
  if (query_norm_) heads.query = (*query_norm_)(heads.query);
  if (key_norm_) heads.key = (*key_norm_)(heads.key);
  return heads;
}

at::Tensor attend(const Heads& heads, const at::Tensor& rotations) {
  const auto placed = [&rotations](const at::Tensor& x) {
    return (rotations.defined() ? rotate(x, rotations) : x).flatten(2);
  };
  return nn::multi_head_attention(placed(heads.query), placed(heads.key), heads.value.flatten(2),
                                  heads.query.size(2));
}

SelfAttention::SelfAttention(const nn::WeightSource& s, const HeadsConfig& c, bool projected_out)
    : projections_(s, c, HeadProjections::kOwn) {
  if (projected_out) to_out_.emplace(s.at("to_out").at(0), c.inner_width(), c.width);
}

at::Tensor SelfAttention::operator()(const at::Tensor& x, const at::Tensor& rotations) const {
  const at::Tensor mixed = attend(projections_(x), rotations);
  return to_out_ ? (*to_out_)(mixed) : mixed;
}

JointAttention::JointAttention(const nn::WeightSource& s, const HeadsConfig& c,
                               bool context_pre_only)
    : own_(s, c, HeadProjections::kOwn),
      added_(s, c, HeadProjections::kAdded),
      to_out_(s.at("to_out").at(0), c.inner_width(), c.width) {
  if (!context_pre_only) to_add_out_.emplace(s.at("to_add_out"), c.inner_width(), c.width);
}

std::pair<at::Tensor, at::Tensor> JointAttention::operator()(const at::Tensor& x,
                                                             const at::Tensor& context,
                                                             const at::Tensor& rotations) const {
  const at::Tensor mixed = attend(joined(added_(context), own_(x)), rotations);
  const auto streams = mixed.split_with_sizes({context.size(1), x.size(1)}, 1);
  return {to_out_(streams[1]), to_add_out_ ? (*to_add_out_)(streams[0]) : at::Tensor()};
}

}  // namespace ringlet::models
