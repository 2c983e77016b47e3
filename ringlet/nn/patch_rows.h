// The patches that a convolution sees, as rows of a matrix, so that it is a matrix product.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer_options.h"

namespace ringlet::nn {

/// Where a convolution with a square kernel of `side` looks in a picture [B, channels, h, w].
struct PatchGeometry {
  std::int64_t batch = 1, channels = 1, height = 1, width = 1;  ///< of the picture
  std::int64_t side = 1;
  Conv2dOptions options;

  PatchGeometry(at::IntArrayRef picture, std::int64_t kernel_side, Conv2dOptions convolution);

  std::int64_t out_height() const { return out_length(height); }
  std::int64_t out_width() const { return out_length(width); }
  /// Whether a patch is a pixel, so that the picture's pixels are the rows.
  bool pixelwise() const { return side == 1 && options.stride == 1 && options.padding == 0; }
  /// Pixels of the result, in all of the batch.
  std::int64_t rows() const { return batch * out_height() * out_width(); }
  /// Numbers of one patch, in the order of a kernel [out, channels, side, side].
  std::int64_t columns() const { return channels * side * side; }

 private:
  std::int64_t out_length(std::int64_t length) const {
    return (length + 2 * options.padding - side) / options.stride + 1;
  }
};

/// The patches of `count` pixels of the result from `first` on, [count, columns], zero beyond the
/// picture. `picture` is fp32, on the CPU and contiguous as channels-last.
at::Tensor patch_rows(const at::Tensor& picture, const PatchGeometry& geometry, std::int64_t first,
                      std::int64_t count);

/// The transposed operation: adds the rows to the pixels of `picture` that they were taken from.
/// The order of the sums does not depend on the number of threads.
void add_patch_rows(at::Tensor& picture, const PatchGeometry& geometry, std::int64_t first,
                    const at::Tensor& rows);

}  // namespace ringlet::nn
