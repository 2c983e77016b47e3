// The arithmetic of attention over one tile of queries and one block of keys, for one instruction
// set. Queries lie side by side, so that sums over keys need nothing across a vector.
#pragma once

#include <cstdint>

namespace ringlet::nn {

inline constexpr std::int64_t kTileQueries = 64;  ///< of a tile
inline constexpr std::int64_t kTileLanes = 16;    ///< what counts of queries are multiples of
inline constexpr std::int64_t kTileEven = 8;      ///< what widths of products are multiples of

/// out[m][n] (+)= sum_k a[m * a_row + k * a_column] in[k][n] for m < rows, k < depth, n < width.
struct TileProduct {
  std::int64_t rows, depth, width;  ///< width: a multiple of kTileEven
  const float* a;
  std::int64_t a_row, a_column;
  const float* in;
  std::int64_t in_stride;
  float* out;
  std::int64_t out_stride;
  bool add;
};

/// The functions for one instruction set. They start no threads and allocate nothing, and add in
/// one fixed order. Tiles are [rows, kTileQueries], of which the first `queries` columns are used,
/// a multiple of kTileLanes.
struct AttentionTiles {
  const char* name;  ///< of the instruction set, for tests
  void (*product)(const TileProduct&);

  /// Scores [keys, kTileQueries] become 2^(score - largest), with the largest so far of each query.
  /// What was summed with smaller ones is to be multiplied by `factors`; `sums` already are.
  void (*exponentials)(float* scores, std::int64_t keys, std::int64_t queries, float* largest,
                       float* sums, float* factors);

  /// From scores s and g = dy v^T, both [keys, kTileQueries], in place: the weights p = 2^(s -
  /// log_sum), and the gradients p (g - dot) of the scores, where dot is that of dy and y.
  void (*gradients)(float* scores, float* g, std::int64_t keys, std::int64_t queries,
                    const float* log_sum, const float* dot);

  /// rows [count, kTileQueries] times a factor for each query.
  void (*scale)(float* rows, std::int64_t count, std::int64_t queries, const float* factors);

  /// s x [count, width], rows that are `stride` apart, as columns [width, kTileQueries]; zeros up
  /// to a whole vector of queries.
  void (*columns)(const float* x, std::int64_t stride, std::int64_t count, std::int64_t width,
                  float s, float* columns);

  /// The reverse.
  void (*rows)(const float* columns, std::int64_t count, std::int64_t width, float s, float* y,
               std::int64_t stride);
};

/// Those for the widest instructions of this processor.
const AttentionTiles& attention_tiles();

/// Those that every processor has; the others are tested against them.
const AttentionTiles& portable_attention_tiles();

}  // namespace ringlet::nn
