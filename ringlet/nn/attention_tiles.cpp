#include "ringlet/nn/attention_tiles.h"

#include <algorithm>

#include "ringlet/nn/vector_types.h"

namespace ringlet::nn {
namespace {

/// kRows rows of kVectors vectors: sums stay in registers over all k.
template <class Vector, int kRows, int kVectors>
RINGLET_INLINE void tile_block(const TileProduct& c, std::int64_t m, std::int64_t n) {
  Vector sums[kRows][kVectors];
  float* out = c.out + m * c.out_stride + n;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) {
      if (c.add)
        load(out + i * c.out_stride + v * kWidth<Vector>, sums[i][v]);
      else
        sums[i][v] = Vector{};
    }
  const float* a = c.a + m * c.a_row;
  const float* in = c.in + n;
  for (std::int64_t k = 0; k < c.depth; ++k, a += c.a_column, in += c.in_stride) {
    Vector numbers[kVectors];
    for (int v = 0; v < kVectors; ++v) load(in + v * kWidth<Vector>, numbers[v]);
    for (int i = 0; i < kRows; ++i) {
      const float factor = a[i * c.a_row];
      for (int v = 0; v < kVectors; ++v) sums[i][v] += factor * numbers[v];
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v)
      store(sums[i][v], out + i * c.out_stride + v * kWidth<Vector>);
}

template <class Vector, int kRows, int kVectors>
RINGLET_INLINE void tile_rows(const TileProduct& c, std::int64_t m, std::int64_t n) {
  for (; m + kRows <= c.rows; m += kRows) tile_block<Vector, kRows, kVectors>(c, m, n);
  if constexpr (kRows > 1) tile_rows<Vector, kRows / 2, kVectors>(c, m, n);
}

/// Half is narrower than Vector, or the same, and eight numbers at most.
template <class Vector, class Half, int kRows, int kVectors>
RINGLET_INLINE void tile_product(const TileProduct& c) {
  constexpr std::int64_t kColumns = kVectors * kWidth<Vector>;
  std::int64_t n = 0;
  for (; n + kColumns <= c.width; n += kColumns) tile_rows<Vector, kRows, kVectors>(c, 0, n);
  for (; n + kWidth<Vector> <= c.width; n += kWidth<Vector>) tile_rows<Vector, kRows, 1>(c, 0, n);
  for (; n < c.width; n += kWidth<Half>) tile_rows<Half, kRows, 1>(c, 0, n);
}

/// 2^x for x <= 0, to a unit in the last place; 2^-126 below that. Adding 1.5 * 2^23 rounds to an
/// integer, which the exponent takes; a polynomial takes the rest, which is within half of one (the
/// least of all greatest relative errors, 9.1e-8, with p(0) = 1).
template <class Vector>
RINGLET_INLINE void power_of_two(const Vector& argument, Vector& result) {
  constexpr float kSmallest = -126.0F, kRound = 12582912.0F;
  const Vector smallest = Vector{} + kSmallest;
  const Vector x = argument > smallest ? argument : smallest;
  const Vector shifted = x + kRound;
  const Vector r = x - (shifted - kRound);
  Vector p = r * 1.3264727e-3F + 9.6715129e-3F;
  p = p * r + 5.5507337e-2F;
  p = p * r + 2.4022242e-1F;
  p = p * r + 6.9314698e-1F;
  p = p * r + 1.0F;
  BitsOf<Vector> integer, bits;
  std::memcpy(&integer, &shifted, sizeof(Vector));
  std::memcpy(&bits, &p, sizeof(Vector));
  bits += integer << 23U;
  std::memcpy(&result, &bits, sizeof(Vector));
}

template <class Vector>
RINGLET_INLINE void exponentials_of(float* scores, std::int64_t keys, std::int64_t queries,
                                    float* largest, float* sums, float* factors) {
  for (std::int64_t n = 0; n < queries; n += kWidth<Vector>) {
    Vector before, most, sum, factor;
    load(largest + n, before);
    most = before;
    for (std::int64_t k = 0; k < keys; ++k) {
      Vector score;
      load(scores + k * kTileQueries + n, score);
      most = score > most ? score : most;
    }
    power_of_two<Vector>(before - most, factor);
    load(sums + n, sum);
    sum *= factor;
    for (std::int64_t k = 0; k < keys; ++k) {
      Vector score;
      load(scores + k * kTileQueries + n, score);
      power_of_two<Vector>(score - most, score);
      sum += score;
      store(score, scores + k * kTileQueries + n);
    }
    store(most, largest + n);
    store(sum, sums + n);
    store(factor, factors + n);
  }
}

template <class Vector>
RINGLET_INLINE void gradients_of(float* scores, float* g, std::int64_t keys, std::int64_t queries,
                                 const float* lse, const float* dot) {
  for (std::int64_t n = 0; n < queries; n += kWidth<Vector>) {
    Vector log_sum, of_result;
    load(lse + n, log_sum);
    load(dot + n, of_result);
    for (std::int64_t k = 0; k < keys; ++k) {
      Vector weight, gradient;
      load(scores + k * kTileQueries + n, weight);
      load(g + k * kTileQueries + n, gradient);
      power_of_two<Vector>(weight - log_sum, weight);
      store(weight, scores + k * kTileQueries + n);
      gradient = weight * (gradient - of_result);
      store(gradient, g + k * kTileQueries + n);
    }
  }
}

template <class Vector>
RINGLET_INLINE void scale_of(float* rows, std::int64_t count, std::int64_t queries,
                             const float* factors) {
  for (std::int64_t n = 0; n < queries; n += kWidth<Vector>) {
    Vector factor, row;
    load(factors + n, factor);
    for (std::int64_t i = 0; i < count; ++i) {
      load(rows + i * kTileQueries + n, row);
      row *= factor;
      store(row, rows + i * kTileQueries + n);
    }
  }
}

/// Whole squares of 16 x 16 numbers by shuffles, where vectors hold a row of them.
template <class Vector>
RINGLET_INLINE void columns_of(const float* rows, std::int64_t stride, std::int64_t count,
                               std::int64_t width, float s, float* columns) {
  const std::int64_t queries = (count + kTileLanes - 1) / kTileLanes * kTileLanes;
  for (std::int64_t n = 0; n < queries; n += kTileLanes) {
    std::int64_t c = 0;
    if constexpr (kWidth<Vector> == kTileLanes)
      if (n + kTileLanes <= count)
        for (; c + kTileLanes <= width; c += kTileLanes)
          turn_square(rows + n * stride + c, stride, s, columns + c * kTileQueries + n,
                      kTileQueries);
    for (; c < width; ++c)
      for (std::int64_t i = n; i < n + kTileLanes; ++i)
        columns[c * kTileQueries + i] = i < count ? s * rows[i * stride + c] : 0.0F;
  }
}

template <class Vector>
RINGLET_INLINE void rows_of(const float* columns, std::int64_t count, std::int64_t width, float s,
                            float* rows, std::int64_t stride) {
  for (std::int64_t n = 0; n < count; n += kTileLanes) {
    std::int64_t c = 0;
    if constexpr (kWidth<Vector> == kTileLanes)
      if (n + kTileLanes <= count)
        for (; c + kTileLanes <= width; c += kTileLanes)
          turn_square(columns + c * kTileQueries + n, kTileQueries, s, rows + n * stride + c,
                      stride);
    for (; c < width; ++c)
      for (std::int64_t i = n; i < std::min(count, n + kTileLanes); ++i)
        rows[i * stride + c] = s * columns[c * kTileQueries + i];
  }
}

// The functions of a set, which the macro gives its instructions and its vectors.
// NOLINTBEGIN(bugprone-macro-parentheses): types and attributes take none
#define RINGLET_ATTENTION_TILES(NAME, TARGET, VECTOR, HALF, ROWS, VECTORS)                       \
  TARGET void product_##NAME(const TileProduct& c) {                                             \
    tile_product<VECTOR, HALF, ROWS, VECTORS>(c);                                                \
  }                                                                                              \
  TARGET void exponentials_##NAME(float* scores, std::int64_t keys, std::int64_t queries,        \
                                  float* largest, float* sums, float* factors) {                 \
    exponentials_of<VECTOR>(scores, keys, queries, largest, sums, factors);                      \
  }                                                                                              \
  TARGET void gradients_##NAME(float* scores, float* g, std::int64_t keys, std::int64_t queries, \
                               const float* lse, const float* dot) {                             \
    gradients_of<VECTOR>(scores, g, keys, queries, lse, dot);                                    \
  }                                                                                              \
  TARGET void scale_##NAME(float* rows, std::int64_t count, std::int64_t queries,                \
                           const float* factors) {                                               \
    scale_of<VECTOR>(rows, count, queries, factors);                                             \
  }                                                                                              \
  TARGET void columns_##NAME(const float* rows, std::int64_t stride, std::int64_t count,         \
                             std::int64_t width, float s, float* columns) {                      \
    columns_of<VECTOR>(rows, stride, count, width, s, columns);                                  \
  }                                                                                              \
  TARGET void rows_##NAME(const float* columns, std::int64_t count, std::int64_t width, float s, \
                          float* rows, std::int64_t stride) {                                    \
    rows_of<VECTOR>(columns, count, width, s, rows, stride);                                     \
  }                                                                                              \
  constexpr AttentionTiles k_##NAME = {                                                          \
      #NAME,        product_##NAME, exponentials_##NAME, gradients_##NAME,                       \
      scale_##NAME, columns_##NAME, rows_##NAME};

RINGLET_ATTENTION_TILES(portable, , Vector4, Vector4, 4, 2)
#if defined(__x86_64__)
RINGLET_ATTENTION_TILES(avx512, RINGLET_AVX512, Vector16, Vector8, 8, 2)
RINGLET_ATTENTION_TILES(avx2, RINGLET_AVX2, Vector8, Vector8, 4, 2)
#endif
#undef RINGLET_ATTENTION_TILES
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace

const AttentionTiles& portable_attention_tiles() { return k_portable; }

const AttentionTiles& attention_tiles() {
#if defined(__x86_64__)
  switch (widest_instruction_set()) {
    case InstructionSet::avx512:
      return k_avx512;
    case InstructionSet::avx2:
      return k_avx2;
    case InstructionSet::portable:
      break;
  }
#endif
  return k_portable;
}

}  // namespace ringlet::nn
