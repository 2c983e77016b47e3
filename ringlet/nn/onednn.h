// Products and convolutions through oneDNN, which LibTorch carries.
//
// For fp32 at::linear calls MKL, which leaves half of the speed of processors other than Intel's
// unused; at::conv2d lays the same weight out anew in every call. The operators here avoid both,
// and know their gradients (once, not those of gradients). docs/performance.md has the
// measurements.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

namespace ringlet::nn::onednn {

/// Whether x is what the functions below take: fp32 on a CPU, and a LibTorch with oneDNN. Depends
/// on nothing that varies between runs, so results stay reproducible.
bool takes(const at::Tensor& x);

/// x [..., in] W [out, in]^T + b; `bias` may be undefined. For the backward pass of a frozen weight
/// nothing but the weight is kept.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// The kernel of a convolution's backward pass, itself a convolution with the kernel turned round
/// and its channels exchanged. It is laid out for the size of the first gradient that comes:
/// oneDNN's blocks depend on it for some widths, and where they are others it lays out anew in
/// every call.
class BackwardKernel final : public torch::CustomClassHolder {
 public:
  explicit BackwardKernel(at::Tensor weight) : weight_(std::move(weight)) {}
  const at::Tensor& laid_out_for(const at::Tensor& gradient, std::int64_t padding);

 private:
  at::Tensor weight_;  ///< that of the forward pass
  std::once_flag once_;
  at::Tensor packed_;
};

/// A frozen convolution kernel laid out for oneDNN.
struct PackedConv2d {
  at::Tensor weight;                            ///< [out, in, k, k] as it is
  at::Tensor forward;                           ///< in oneDNN's layout
  c10::intrusive_ptr<BackwardKernel> backward;  ///< null: `weight` is laid out in every pass
  std::int64_t stride = 1;
  std::int64_t padding = 0;

  bool defined() const { return forward.defined(); }
};

/// Lays a kernel out; `for_training` also for the backward pass (strides other than 1 do without).
/// Not defined() when this LibTorch has no oneDNN.
PackedConv2d pack_conv2d(const at::Tensor& weight, std::int64_t stride, std::int64_t padding,
                         bool for_training);

/// Cross-correlation of x [B, in, h, w] with a packed frozen kernel; the result is channels-last.
/// Only x gets a gradient, and nothing of x is kept for it.
at::Tensor conv2d(const at::Tensor& x, const PackedConv2d& kernel, const at::Tensor& bias);

}  // namespace ringlet::nn::onednn
