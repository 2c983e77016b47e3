// What a pass of a diffusion transformer holds in memory, block by block; see pass_memory.h.
#pragma once

#include <cstdint>
#include <set>

#include "ringlet/models/diffusion/flux_config.h"
#include "ringlet/models/diffusion/sd3_config.h"
#include "ringlet/models/text/t5_encoder.h"
#include "ringlet/pipeline/pass_memory.h"

namespace ringlet::pipeline {

/// Blocks of two streams, then blocks of one. Widths and numbers of tokens, one picture's.
struct TransformerShape {
  std::int64_t width = 0;
  std::int64_t heads = 0;
  std::int64_t joint_blocks = 0;
  std::int64_t single_blocks = 0;
  std::int64_t picture_tokens = 0;
  std::int64_t text_tokens = 0;
  std::set<std::int64_t> dual_attention = {};  ///< joint blocks with attn2

  /// For latents of this size, in latents.
  static TransformerShape of(const models::Sd3Config& config, PictureSize latents,
                             std::int64_t text_tokens);
  static TransformerShape of(const models::FluxConfig& config, PictureSize latents,
                             std::int64_t text_tokens);
};

/// A training pass of the network "transformer". `adapters` may be null.
PassBlocks transformer_pass(const TransformerShape& transformer, const PassShape& shape,
                            const adapt::AdapterSet* adapters);

/// The most that a pass without gradients holds.
double transformer_inference(const TransformerShape& transformer, std::int64_t rows);

/// A training pass of T5 over `tokens` tokens of each row.
PassBlocks t5_pass(const models::T5Config& config, std::int64_t rows, std::int64_t tokens);

}  // namespace ringlet::pipeline
