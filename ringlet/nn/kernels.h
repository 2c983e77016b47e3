// What computes a network's products on which device and in which type: a table of kernel sets, so
// that layers and adapters contain mathematics alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer_options.h"
#include "ringlet/nn/stored_weight.h"

namespace ringlet::nn {

class KernelSet;

/// A frozen convolution kernel as its kernel set keeps it, in a layout of the set's choice.
class PreparedConv2d {
 public:
  explicit PreparedConv2d(const KernelSet& kernels) : kernels_(kernels) {}
  virtual ~PreparedConv2d() = default;

  /// Cross-correlation of x [B, in, h, w], for which kernels_for is the set that prepared it, with
  /// this kernel; `bias` may be undefined. Only x gets a gradient, and nothing of x is kept for it.
  virtual at::Tensor conv2d(const at::Tensor& x, const at::Tensor& bias) const = 0;

  /// Whether its passes read the weight that it was prepared from, which then has to be in memory:
  /// else there is a layout in its place.
  virtual bool reads_weight() const = 0;

  /// Bytes of a layout that the first backward pass makes, and that stays.
  virtual std::int64_t backward_layout_bytes() const { return 0; }

  /// The set that it is for.
  const KernelSet& kernels() const { return kernels_; }

 private:
  const KernelSet& kernels_;
};

/// What attention is besides its queries, keys and values.
struct AttentionOptions {
  std::int64_t heads;
  bool causal = false;   ///< later positions are masked
  at::Tensor mask = {};  ///< bool or added to scores, broadcasts to [B, H, N, M]; or undefined
  double scale = 0.0;    ///< of q k^T; 0: one through the root of a head's width
};

/// The operations of one device and type. This class is LibTorch's set, for any of them; another
/// set derives from it and overrides what it has better kernels for (nn/onednn.cpp).
class KernelSet {
 public:
  virtual ~KernelSet() = default;

  /// For logs and tests: "libtorch", "onednn".
  virtual std::string_view name() const;

  /// x [..., in] W [out, in]^T + b; `bias` may be undefined. W may be of a narrower type, or codes:
  /// it is widened for the duration of the call. For the backward pass of a frozen weight nothing
  /// but the weight is kept, as it is stored.
  virtual at::Tensor linear(const at::Tensor& x, const StoredWeight& weight,
                            const at::Tensor& bias) const;

  /// a b^T of matrices [rows, width] and [columns, width], where no gradient is recorded.
  virtual at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) const;

  /// sum [rows, columns] += s a b^T with a [rows, width] and b [columns, width], where no gradient
  /// is recorded.
  virtual void add_product(at::Tensor& sum, double s, const at::Tensor& a,
                           const at::Tensor& b) const;

  /// Cross-correlation of x [B, in, h, w] with a kernel [out, in, k, k]; `bias` may be undefined.
  /// Widened and kept as for linear().
  virtual at::Tensor conv2d(const at::Tensor& x, const StoredWeight& weight, const at::Tensor& bias,
                            Conv2dOptions options) const;

  /// softmax(scale q k^T) v per head: q [B, N, H*d], k and v [B, M, H*d] -> [B, N, H*d].
  virtual at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options) const;

  /// Whether attention without a mask keeps no scores for the backward pass, for heads of this
  /// width in the options' type. Computes a small one.
  virtual bool fuses_attention(std::int64_t head_width, const at::TensorOptions& options) const;

  /// Lays a frozen kernel out for its use; one in codes stays so. `weight` may be narrower than the
  /// set's type. Null where the set has nothing better than conv2d above.
  virtual std::shared_ptr<const PreparedConv2d> prepare_conv2d(const StoredWeight& weight,
                                                               Conv2dOptions options,
                                                               WeightUse use) const;
};

/// The set for tensors on this device and of this type: the first row of the table that has them,
/// else LibTorch's. Depends on nothing else, so results stay reproducible.
const KernelSet& kernels_for(c10::Device device, at::ScalarType type);
inline const KernelSet& kernels_for(const at::Tensor& x) {
  return kernels_for(x.device(), x.scalar_type());
}

}  // namespace ringlet::nn
