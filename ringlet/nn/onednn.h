// Products and convolutions of frozen weights through oneDNN, which LibTorch carries.
//
// For fp32 at::linear calls MKL, which leaves half of the speed of processors other than Intel's
// unused; at::conv2d lays the same weight out anew in every call. The operators here avoid both.
// They know no gradient, so layers call them only where none is recorded. docs/performance.md has
// the measurements.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::nn::onednn {

/// Whether x is what the functions below take: fp32 on a CPU, no gradient recorded, and a LibTorch
/// with oneDNN. Depends on nothing that varies between runs, so results stay reproducible.
bool takes(const at::Tensor& x);

/// x [..., in] W [out, in]^T + b; `bias` may be undefined.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// The weight [out, in, k, k] in oneDNN's own layout, for conv2d below alone. Undefined when this
/// LibTorch has no oneDNN.
at::Tensor pack_conv2d(const at::Tensor& weight, std::int64_t stride, std::int64_t padding);

/// Cross-correlation of x [B, in, h, w] with a packed weight; the result is channels-last.
at::Tensor conv2d(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                  std::int64_t stride, std::int64_t padding);

}  // namespace ringlet::nn::onednn
