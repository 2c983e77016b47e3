#include "ringlet/models/diffusion/joint_attention.h"

#include <ATen/ops/cat.h>

#include "ringlet/models/diffusion/rotary.h"
#include "ringlet/nn/attention.h"
#include "ringlet/nn/recomputed_inputs.h"

namespace ringlet::models {
namespace {

constexpr double kHeadNormEpsilon = 1e-6;

/// Streams one after the other, without a copy of a single one.
at::Tensor in_one_sequence(const std::vector<at::Tensor>& streams) {
  return streams.size() == 1 ? streams.front() : at::cat(streams, 1);
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

Heads HeadProjections::operator()(const at::Tensor& normed) const {
  return {.query = query_(normed), .key = key_(normed), .value = value_(normed)};
}

Heads HeadProjections::operator()(const NormedTokens& tokens) const {
  const auto all = tokens.into([this](const at::Tensor& normed) {
    const Heads heads = (*this)(normed);
    return std::vector<at::Tensor>{heads.query, heads.key, heads.value};
  });
  return {.query = all[0], .key = all[1], .value = all[2]};
}

at::Tensor HeadProjections::split(const at::Tensor& x,
                                  const std::optional<nn::RmsNorm>& norm) const {
  const at::Tensor heads = x.unflatten(-1, {heads_, -1});
  return norm ? (*norm)(heads) : heads;
}

at::Tensor attend(const std::vector<StreamHeads>& streams, const at::Tensor& rotations) {
  const HeadProjections& first = streams.front().projections;
  std::vector<at::Tensor> raw, values;
  std::vector<HeadProjections> norms;
  for (const StreamHeads& stream : streams) {
    raw.insert(raw.end(), {stream.heads.query, stream.heads.key});
    values.push_back(stream.heads.value);
    norms.push_back(stream.projections);
  }
  raw.push_back(rotations);
  const auto placed = [norms](const std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    std::vector<at::Tensor> queries, keys;
    for (std::size_t i = 0; i < norms.size(); ++i) {
      queries.push_back(norms[i].normed_query(in[2 * i]));
      keys.push_back(norms[i].normed_key(in[2 * i + 1]));
    }
    const auto turned = [&in](const std::vector<at::Tensor>& parts) {
      const at::Tensor all = in_one_sequence(parts);
      return (in.back().defined() ? rotate(all, in.back()) : all).flatten(2);
    };
    return {turned(queries), turned(keys)};
  };
  const at::Tensor value = in_one_sequence(values);
  const auto attention = [&](const std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    return {nn::multi_head_attention(in[0], in[1], value, first.heads())};
  };
  // Without norms nobody else keeps the queries and keys of single streams.
  return first.has_norms() ? nn::use_recomputed(placed, raw, attention).front()
                           : attention(placed(raw)).front();
}

SelfAttention::SelfAttention(const nn::WeightSource& s, const HeadsConfig& c)
    : projections_(s, c, HeadProjections::kOwn),
      to_out_(s.at("to_out").at(0), c.inner_width(), c.width) {}

at::Tensor SelfAttention::operator()(const NormedTokens& x) const {
  return to_out_(attend({{projections_, projections_(x)}}, {}));
}

JointAttention::JointAttention(const nn::WeightSource& s, const HeadsConfig& c,
                               bool context_pre_only)
    : own_(s, c, HeadProjections::kOwn),
      added_(s, c, HeadProjections::kAdded),
      to_out_(s.at("to_out").at(0), c.inner_width(), c.width) {
  if (!context_pre_only) to_add_out_.emplace(s.at("to_add_out"), c.inner_width(), c.width);
}

std::pair<at::Tensor, at::Tensor> JointAttention::operator()(const NormedTokens& x,
                                                             const NormedTokens& context,
                                                             const at::Tensor& rotations) const {
  const at::Tensor mixed = attend({{added_, added_(context)}, {own_, own_(x)}}, rotations);
  const std::int64_t words = context.x.size(1), tokens = x.x.size(1);
  // A layer that takes its rows together has a copy of them where there are several pictures.
  const auto stream = [&mixed](std::int64_t begin, std::int64_t count, const nn::Linear& layer) {
    return nn::use_recomputed(
        [begin, count](const auto& in) { return in.front().narrow(1, begin, count).contiguous(); },
        {mixed}, layer);
  };
  return {stream(words, tokens, to_out_),
          to_add_out_ ? stream(0, words, *to_add_out_) : at::Tensor()};
}

}  // namespace ringlet::models
