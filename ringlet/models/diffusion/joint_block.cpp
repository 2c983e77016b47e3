#include "ringlet/models/diffusion/joint_block.h"

namespace ringlet::models {
namespace {

/// The sublayers that AdaLayerNormZero modulates, in its order.
enum Sublayer : std::size_t { kAttention, kFeedForward, kDualAttention };

at::Tensor with_feed_forward(const at::Tensor& x, const FeedForward& ff, const Modulation& m) {
  return add_gated(x, m, NormedTokens{x, m}.into(ff));
}

}  // namespace

JointTransformerBlock::ContextPath::ContextPath(const nn::WeightSource& s, std::int64_t width)
    : norm1(s.at("norm1_context"), width, 2), ff(s.at("ff_context"), width) {}

JointTransformerBlock::JointTransformerBlock(const nn::WeightSource& s, const JointBlockConfig& c)
    : block_(s),
      norm1_(s.at("norm1"), c.heads.width, c.dual_attention ? 3 : 2),
      attn_(s.at("attn"), c.heads, c.context_pre_only),
      ff_(s.at("ff"), c.heads.width) {
  if (c.context_pre_only)
    norm1_context_.emplace(s.at("norm1_context"), c.heads.width);
  else
    context_.emplace(s, c.heads.width);
  if (c.dual_attention) attn2_.emplace(s.at("attn2"), c.heads);
}

TokenStreams JointTransformerBlock::forward(const TokenStreams& tokens, const at::Tensor& time,
                                            const at::Tensor& rotations) const {
  const auto block = [this](const std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    const TokenStreams out = compute({in[0], in[1]}, in[2], in[3]);
    if (!out.text.defined()) return {out.picture};
    return {out.picture, out.text};
  };
  const auto out = block_.run_list(block, {tokens.picture, tokens.text, time, rotations});
  return {out[0], out.size() > 1 ? out[1] : at::Tensor()};
}

TokenStreams JointTransformerBlock::compute(const TokenStreams& tokens, const at::Tensor& time,
                                            const at::Tensor& rotations) const {
  const auto modulations = norm1_(time);
  const NormedTokens picture{tokens.picture, modulations[kAttention]};
  if (norm1_context_) {
    const NormedTokens text = (*norm1_context_)(tokens.text, time);
    return {finish_picture(tokens.picture, attn_(picture, text, rotations).first, modulations),
            at::Tensor()};
  }
  const auto of_text = context_->norm1(time);
  const NormedTokens text{tokens.text, of_text[kAttention]};
  const auto [attended, attended_text] = attn_(picture, text, rotations);
  return {finish_picture(tokens.picture, attended, modulations),
          with_feed_forward(add_gated(tokens.text, of_text[kAttention], attended_text),
                            context_->ff, of_text[kFeedForward])};
}

at::Tensor JointTransformerBlock::finish_picture(const at::Tensor& picture,
                                                 const at::Tensor& attended,
                                                 const std::vector<Modulation>& m) const {
  at::Tensor x = add_gated(picture, m[kAttention], attended);
  if (attn2_) x = add_gated(x, m[kDualAttention], (*attn2_)({picture, m[kDualAttention]}));
  return with_feed_forward(x, ff_, m[kFeedForward]);
}

}  // namespace ringlet::models
