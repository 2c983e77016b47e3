// PatchEmbed: latents as tokens with a table of positions (Dosovitskiy et al. 2021; Esser et al.
// 2024 for the table that is cropped to the picture).
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct PatchEmbeddingConfig {
  std::int64_t channels;    ///< of the latents
  std::int64_t patch_size;  ///< latents along a side of a token
  std::int64_t width;       ///< of the tokens
  std::int64_t table_side;  ///< tokens along a side of the table
  std::int64_t base_side;   ///< tokens along a side of the pictures that were trained first
};

/// Sinusoids of a square of tokens [1, side * side, width], row after row: half of the width for
/// the column, half for the row, both counted in units of side / base_side.
at::Tensor position_table(std::int64_t width, std::int64_t side, std::int64_t base_side);

class PatchEmbedding {
 public:
  /// Takes the table "pos_embed" where the source names it, else position_table.
  PatchEmbedding(const nn::WeightSource& source, const PatchEmbeddingConfig& config);

  /// latents [B, C, h, w] -> tokens [B, h/p * w/p, width] with the middle of the table added.
  /// Throws Error(invalid_argument) for sizes that are no multiples of the patch or larger than the
  /// table.
  at::Tensor operator()(const at::Tensor& latents) const;

 private:
  at::Tensor positions(std::int64_t rows, std::int64_t columns) const;

  PatchEmbeddingConfig config_;
  nn::Conv2d proj_;
  at::Tensor table_;  // [table_side, table_side, width]
};

/// Back to a picture: tokens [B, rows * columns, p * p * C] -> [B, C, rows * p, columns * p].
at::Tensor unpatch(const at::Tensor& tokens, std::int64_t rows, std::int64_t columns,
                   std::int64_t patch_size);

}  // namespace ringlet::models
