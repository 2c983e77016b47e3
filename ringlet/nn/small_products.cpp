#include "ringlet/nn/small_products.h"

#include <cstddef>
#include <cstring>

#include "ringlet/nn/vector_types.h"

namespace ringlet::nn {
namespace {

/// `kRows` rows of a product, `kVectors` vectors of each: sums stay in registers over all k.
template <class Vector, int kRows, int kVectors>
RINGLET_INLINE void product_block(const Product& c, const float* in, float* out, std::int64_t m,
                                  std::int64_t n) {
  Vector sums[kRows][kVectors];
  float* rows[kRows];
  for (int i = 0; i < kRows; ++i) {
    rows[i] = out + c.out_rows.at(m + i) + n;
    for (int v = 0; v < kVectors; ++v) {
      if (c.add)
        load(rows[i] + v * kWidth<Vector>, sums[i][v]);
      else
        sums[i][v] = Vector{};
    }
  }
  const float* a = c.a + m * c.a_row;
  const std::int64_t outer = c.in_rows.count / c.in_rows.inner;
  for (std::int64_t o = 0; o < outer; ++o) {
    const float* row = in + o * c.in_rows.outer_stride + n;
    for (std::int64_t k = 0; k < c.in_rows.inner; ++k) {
      Vector numbers[kVectors];
      for (int v = 0; v < kVectors; ++v) load(row + v * kWidth<Vector>, numbers[v]);
      for (int i = 0; i < kRows; ++i) {
        const float factor = a[i * c.a_row];
        for (int v = 0; v < kVectors; ++v) sums[i][v] += factor * numbers[v];
      }
      row += c.in_rows.stride;
      a += c.a_column;
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) store(sums[i][v], rows[i] + v * kWidth<Vector>);
}

/// All rows of some columns, as many at a time as there are registers for.
template <class Vector, int kRows, int kVectors>
RINGLET_INLINE void product_rows(const Product& c, const float* in, float* out, std::int64_t m,
                                 std::int64_t n) {
  for (; m + kRows <= c.out_rows.count; m += kRows)
    product_block<Vector, kRows, kVectors>(c, in, out, m, n);
  if constexpr (kRows > 1) product_rows<Vector, kRows / 2, kVectors>(c, in, out, m, n);
}

template <class Vector, int kRows, int kVectors>
RINGLET_INLINE void product_columns(const Product& c) {
  for (std::int64_t b = 0; b < c.in_batch.count; ++b) {
    const float* in = c.in + c.in_batch.at(b);
    float* out = c.out + c.out_batch.at(b);
    std::int64_t n = 0;
    for (; n + kVectors * kWidth<Vector> <= c.width; n += kVectors * kWidth<Vector>)
      product_rows<Vector, kRows, kVectors>(c, in, out, 0, n);
    for (; n + kWidth<Vector> <= c.width; n += kWidth<Vector>)
      product_rows<Vector, kRows, 1>(c, in, out, 0, n);
    for (; n < c.width; ++n) product_rows<float, kRows, 1>(c, in, out, 0, n);
  }
}

/// sums[i] = the sum of the numbers of vectors[i], of as many vectors as a vector has numbers.
template <class Vector>
RINGLET_INLINE void sums_of(Vector (&vectors)[kWidth<Vector>], float (&sums)[kWidth<Vector>]) {
  for (std::int64_t half = kWidth<Vector> / 2; half > 0; half /= 2)
    for (std::int64_t i = 0; i < half; ++i) {
      Vector low, high;
      alternate(vectors[i], vectors[i + half], low, high);
      vectors[i] = low + high;
    }
  store(vectors[0], sums);
}

/// kRows x kColumns sums over all b and n, as many as a vector has numbers or fewer.
template <class Vector, int kRows, int kColumns>
RINGLET_INLINE void dot_block(const DotProducts& c, std::int64_t m, std::int64_t k) {
  constexpr std::int64_t kLength = kWidth<Vector>;
  Vector sums[kLength] = {};
  float rest[kRows][kColumns] = {}, all[kLength];
  std::int64_t p_places[kRows], q_places[kColumns];
  for (int i = 0; i < kRows; ++i) p_places[i] = c.p_rows.at(m + i);
  for (int j = 0; j < kColumns; ++j) q_places[j] = c.q_rows.at(k + j);
  for (std::int64_t b = 0; b < c.p_batch.count; ++b) {
    const float* p = c.p + c.p_batch.at(b);
    const float* q = c.q + c.q_batch.at(b);
    std::int64_t n = 0;
    for (; n + kLength <= c.width; n += kLength) {
      Vector columns[kColumns];
      for (int j = 0; j < kColumns; ++j) load(q + q_places[j] + n, columns[j]);
      for (int i = 0; i < kRows; ++i) {
        Vector row;
        load(p + p_places[i] + n, row);
        for (int j = 0; j < kColumns; ++j) sums[i * kColumns + j] += row * columns[j];
      }
    }
    for (; n < c.width; ++n)
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) rest[i][j] += p[p_places[i] + n] * q[q_places[j] + n];
  }
  sums_of(sums, all);
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kColumns; ++j)
      c.out[(m + i) * c.out_row + (k + j) * c.out_column] += all[i * kColumns + j] + rest[i][j];
}

template <class Vector, int kRows, int kColumns>
RINGLET_INLINE void dot_columns(const DotProducts& c, std::int64_t m, std::int64_t k) {
  for (; k + kColumns <= c.q_rows.count; k += kColumns) dot_block<Vector, kRows, kColumns>(c, m, k);
  if constexpr (kColumns > 1) dot_columns<Vector, kRows, kColumns / 2>(c, m, k);
}

template <class Vector, int kRows, int kColumns>
RINGLET_INLINE void dot_rows(const DotProducts& c, std::int64_t m) {
  for (; m + kRows <= c.p_rows.count; m += kRows) dot_columns<Vector, kRows, kColumns>(c, m, 0);
  if constexpr (kRows > 1) dot_rows<Vector, kRows / 2, kColumns>(c, m);
}

constexpr std::int64_t kLanes = SmallProducts::kLanes;

template <bool kShuffles>
RINGLET_INLINE void load_tile_with(const float* x, std::int64_t stride, std::int64_t count,
                                   std::int64_t width, std::int64_t padded, float* tile) {
  std::int64_t j = 0;
  if constexpr (kShuffles)
    if (count == kLanes)
      for (; j + kLanes <= width; j += kLanes)
        turn_square(x + j, stride, 1.0F, tile + j * kLanes, kLanes);
  if (count < kLanes || width < padded)
    std::memset(tile + j * kLanes, 0, static_cast<std::size_t>((padded - j) * kLanes) * 4);
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t k = j; k < width; ++k) tile[k * kLanes + i] = x[i * stride + k];
}

template <bool kShuffles>
RINGLET_INLINE void store_tile_with(const float* tile, std::int64_t stride, std::int64_t count,
                                    std::int64_t width, float* y) {
  std::int64_t j = 0;
  if constexpr (kShuffles)
    if (count == kLanes)
      for (; j + kLanes <= width; j += kLanes)
        turn_square(tile + j * kLanes, kLanes, 1.0F, y + j, stride);
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t k = j; k < width; ++k) y[i * stride + k] = tile[k * kLanes + i];
}

void product_portable(const Product& c) { product_columns<Vector4, 4, 2>(c); }
void dots_portable(const DotProducts& c) { dot_rows<Vector4, 2, 2>(c, 0); }
void load_portable(const float* x, std::int64_t stride, std::int64_t count, std::int64_t width,
                   std::int64_t padded, float* tile) {
  load_tile_with<false>(x, stride, count, width, padded, tile);
}
void store_portable(const float* tile, std::int64_t stride, std::int64_t count, std::int64_t width,
                    float* y) {
  store_tile_with<false>(tile, stride, count, width, y);
}

constexpr SmallProducts kPortable = {"portable", product_portable, dots_portable, load_portable,
                                     store_portable};

#if defined(__x86_64__)

RINGLET_AVX512 void product_avx512(const Product& c) { product_columns<Vector16, 8, 2>(c); }
RINGLET_AVX512 void dots_avx512(const DotProducts& c) { dot_rows<Vector16, 4, 4>(c, 0); }
RINGLET_AVX512 void load_avx512(const float* x, std::int64_t stride, std::int64_t count,
                                std::int64_t width, std::int64_t padded, float* tile) {
  load_tile_with<true>(x, stride, count, width, padded, tile);
}
RINGLET_AVX512 void store_avx512(const float* tile, std::int64_t stride, std::int64_t count,
                                 std::int64_t width, float* y) {
  store_tile_with<true>(tile, stride, count, width, y);
}

RINGLET_AVX2 void product_avx2(const Product& c) { product_columns<Vector8, 4, 2>(c); }
RINGLET_AVX2 void dots_avx2(const DotProducts& c) { dot_rows<Vector8, 4, 2>(c, 0); }
RINGLET_AVX2 void load_avx2(const float* x, std::int64_t stride, std::int64_t count,
                            std::int64_t width, std::int64_t padded, float* tile) {
  load_tile_with<false>(x, stride, count, width, padded, tile);
}
RINGLET_AVX2 void store_avx2(const float* tile, std::int64_t stride, std::int64_t count,
                             std::int64_t width, float* y) {
  store_tile_with<false>(tile, stride, count, width, y);
}

constexpr SmallProducts kAvx512 = {"avx512", product_avx512, dots_avx512, load_avx512,
                                   store_avx512};
constexpr SmallProducts kAvx2 = {"avx2", product_avx2, dots_avx2, load_avx2, store_avx2};

#endif

}  // namespace

const SmallProducts& portable_small_products() { return kPortable; }

const SmallProducts& small_products() {
#if defined(__x86_64__)
  static const SmallProducts& widest = widest_instruction_set() == InstructionSet::avx512 ? kAvx512
                                       : widest_instruction_set() == InstructionSet::avx2
                                           ? kAvx2
                                           : kPortable;
  return widest;
#else
  return kPortable;
#endif
}

}  // namespace ringlet::nn
