// Products of small matrices, said by their strides: what the executors of a fused kernel compute,
// on the host (small_products.h) as on a device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define RINGLET_HOST_DEVICE __host__ __device__
#else
#define RINGLET_HOST_DEVICE
#endif

namespace ringlet::nn {

/// Places of `count` rows in memory, in two levels: row i begins at
/// (i / inner) * outer_stride + (i % inner) * stride.
struct Places {
  std::int64_t count = 1;
  std::int64_t inner = 1;
  std::int64_t outer_stride = 0;
  std::int64_t stride = 0;

  RINGLET_HOST_DEVICE std::int64_t at(std::int64_t i) const {
    return i / inner * outer_stride + i % inner * stride;
  }
  /// One level: row i begins at i * stride.
  RINGLET_HOST_DEVICE static Places even(std::int64_t count, std::int64_t stride) {
    return {count, count, 0, stride};
  }
};

/// out[b][m][n] (+)= sum_k a[m][k] in[b][k][n] with n < width, whose numbers lie side by side. The
/// same small a serves every b.
struct Product {
  const float* a;
  std::int64_t a_row, a_column;  ///< strides of m and k
  const float* in;
  Places in_rows, in_batch;  ///< k, b
  float* out;
  Places out_rows, out_batch;  ///< m, b
  std::int64_t width;
  bool add;
};

/// out[m][k] += sum_b sum_n p[b][m][n] q[b][k][n] with n < width.
struct DotProducts {
  const float* p;
  Places p_rows, p_batch;  ///< m, b
  const float* q;
  Places q_rows, q_batch;  ///< k, b
  float* out;
  std::int64_t out_row, out_column;  ///< strides of m and k
  std::int64_t width;
};

}  // namespace ringlet::nn
