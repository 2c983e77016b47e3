#include "ringlet/pipeline/transformer_memory.h"

#include <string>
#include <utility>

namespace ringlet::pipeline {
namespace {

constexpr double kInner = 4.0;       ///< width of a feed-forward's middle, in widths
constexpr double kOperations = 2.0;  ///< a product and a sum
constexpr std::int64_t kPatch = 2;   ///< of FLUX's packed latents

std::int64_t tokens_of(PictureSize latents, std::int64_t patch) {
  return (latents.width / patch) * (latents.height / patch);
}

/// Walks the blocks as the networks' forward passes do.
class TransformerWalk {
 public:
  TransformerWalk(const TransformerShape& transformer, const PassShape& shape,
                  LayerAdapters adapters)
      : t_(transformer),
        s_(shape),
        adapters_(std::move(adapters)),
        width_(static_cast<double>(t_.width)),
        picture_(static_cast<double>(s_.rows * t_.picture_tokens)),
        text_(static_cast<double>(s_.rows * t_.text_tokens)) {}

  PassBlocks all() {
    before_ = (picture_ + text_) * width_;
    for (std::int64_t i = 0; i < t_.joint_blocks; ++i) joint(i);
    if (t_.single_blocks > 0) before_ = (picture_ + text_) * width_;  // both in one sequence
    for (std::int64_t i = 0; i < t_.single_blocks; ++i) single(i);
    // The last norm's input stays; its result, and the gradients of both.
    blocks_.push_back({.before = std::exchange(before_, 0.0), .passing = 3.0 * picture_ * width_});
    return blocks_;
  }

 private:
  /// Of layers whose input is computed again in the backward pass, or is there anyway.
  double adapted(const std::string& prefix, std::initializer_list<const char*> layers,
                 double tokens) const {
    return kept_by_layers(adapters_, prefix, layers, {tokens, 0.0}, s_);
  }
  /// Of those that take attention's result, which only a fused kernel keeps.
  double adapted_result(const std::string& prefix, const char* layer, double tokens) const {
    return kept_by_layers(adapters_, prefix, {layer}, {tokens, s_.fused_attention ? 0.0 : width_},
                          s_);
  }

  /// Queries and keys as their layers or, without norms, attention have them, values and result.
  double attention(double tokens, double seen) const {
    const double scores = s_.fused_attention ? 0.0 : static_cast<double>(t_.heads) * tokens * seen;
    return tokens * width_ * 4.0 + scores;
  }

  /// `wide` numbers go into the layer with the widest input. When its gradient is computed they are
  /// there again, beside gradients of them from the layer and from its adapter. Meanwhile the
  /// gradient of the tokens waits.
  void block(const std::string& name, double inside, double wide, double work) {
    const double tokens = picture_ + text_;
    blocks_.push_back({.name = name,
                       .before = std::exchange(before_, tokens * width_),
                       .inside = inside,
                       .passing = 3.0 * wide + tokens * width_,
                       .work = work});
  }

  void joint(std::int64_t index) {
    const std::string name = "transformer_blocks." + std::to_string(index);
    const double tokens = picture_ + text_, seen = tokens / static_cast<double>(s_.rows);
    const bool dual = t_.dual_attention.contains(index);
    // The second norm's input, and the activation's.
    double inside = attention(tokens, seen) + tokens * width_ * (1.0 + kInner);
    if (dual) inside += attention(picture_, picture_ / static_cast<double>(s_.rows));
    inside += adapted(name, {".attn.to_q", ".attn.to_k", ".attn.to_v"}, picture_) +
              adapted(name, {".attn.add_q_proj", ".attn.add_k_proj", ".attn.add_v_proj"}, text_) +
              adapted_result(name, ".attn.to_out.0", picture_) +
              adapted_result(name, ".attn.to_add_out", text_) +
              adapted(name, {".attn2.to_q", ".attn2.to_k", ".attn2.to_v"}, picture_) +
              adapted_result(name, ".attn2.to_out.0", picture_) +
              adapted(name, {".ff.net.0.proj", ".ff.net.2"}, picture_) +
              adapted(name, {".ff_context.net.0.proj", ".ff_context.net.2"}, text_);
    const double products = 4.0 + 2.0 * kInner + (dual ? 4.0 : 0.0);
    block(name, inside, kInner * picture_ * width_,
          kOperations * tokens * width_ * (products * width_ + 2.0 * seen));
  }

  void single(std::int64_t index) {
    const std::string name = "single_transformer_blocks." + std::to_string(index);
    const double tokens = picture_ + text_, seen = tokens / static_cast<double>(s_.rows);
    double inside = attention(tokens, seen) + tokens * width_ * kInner;
    inside += adapted(name, {".attn.to_q", ".attn.to_k", ".attn.to_v", ".proj_mlp"}, tokens) +
              adapted_result(name, ".proj_out", tokens);
    block(name, inside, (1.0 + kInner) * tokens * width_,
          kOperations * tokens * width_ * ((4.0 + 2.0 * kInner) * width_ + 2.0 * seen));
  }

  const TransformerShape& t_;
  PassShape s_;
  LayerAdapters adapters_;
  double width_, picture_, text_;  ///< tokens of all rows
  PassBlocks blocks_;
  double before_ = 0.0;  ///< kept since the last block
};

}  // namespace

TransformerShape TransformerShape::of(const models::Sd3Config& c, PictureSize latents,
                                      std::int64_t text_tokens) {
  return {.width = c.width(),
          .heads = c.heads,
          .joint_blocks = c.layers,
          .picture_tokens = tokens_of(latents, c.patch_size),
          .text_tokens = text_tokens,
          .dual_attention = {c.dual_attention_layers.begin(), c.dual_attention_layers.end()}};
}

TransformerShape TransformerShape::of(const models::FluxConfig& c, PictureSize latents,
                                      std::int64_t text_tokens) {
  return {.width = c.width(),
          .heads = c.heads,
          .joint_blocks = c.layers,
          .single_blocks = c.single_layers,
          .picture_tokens = tokens_of(latents, kPatch),
          .text_tokens = text_tokens};
}

PassBlocks transformer_pass(const TransformerShape& transformer, const PassShape& shape,
                            const adapt::AdapterSet* adapters) {
  PassBlocks blocks =
      TransformerWalk(transformer, shape, layer_adapters(adapters, "transformer")).all();
  // Gradients of it gather, and are put together when those of the blocks are done.
  constexpr double kWithGradients = 1.4, kTogether = 1.6;
  const double made = kept_by_parameters(adapters, shape.precision);
  blocks.insert(blocks.begin(), {.before = kWithGradients * made, .passing = kTogether * made});
  return blocks;
}

double transformer_inference(const TransformerShape& t, std::int64_t rows) {
  const auto tokens = static_cast<double>(rows * (t.picture_tokens + t.text_tokens));
  // Tokens, their norm, and the feed-forward's middle before and behind its activation, beside the
  // attention's result in a block of one stream.
  constexpr double kHeld = 3.0 + 2.0 * kInner + 5.0;
  return tokens * static_cast<double>(t.width) * kHeld;
}

PassBlocks t5_pass(const models::T5Config& c, std::int64_t rows, std::int64_t tokens) {
  const auto all = static_cast<double>(rows * tokens);
  const auto width = static_cast<double>(c.width), inner = static_cast<double>(c.inner_width);
  const auto heads = static_cast<double>(c.heads), seen = static_cast<double>(tokens);
  const double attention = 4.0 * static_cast<double>(c.heads * c.head_width) + heads * seen;
  const double layer = all * (2.0 * width + attention + 4.0 * inner);
  return {{.before = static_cast<double>(c.layers) * layer, .passing = 2.0 * all * inner}};
}

}  // namespace ringlet::pipeline
