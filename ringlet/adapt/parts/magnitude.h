// The rescaling of DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"): the
// adapted weight keeps its direction and gets a learned length.
#pragma once

#include <functional>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// W' = N(W) = diag(m / |W|) W for W = T_out W0 T_in + D, |W| the norms of the rows (Side::output,
/// the paper's and PEFT's) or, with the diagonal on the other side, of the columns (Side::input:
/// most files of LyCORIS before 3.2). For a convolution a row is an output channel, a column an
/// input channel. Starts at m = |W0|. A row of zeros stays zero.
class Magnitude {
 public:
  /// `detached` takes |W| for a constant in the backward pass, as the paper does (§4.3).
  Magnitude(const at::Tensor& w0, Side side, bool detached);

  /// m / |W|, [out] or [in], for a formed weight W.
  at::Tensor gain(const at::Tensor& w) const;

  /// The same for W = W0 + scale up down, without forming it, W0 always the same:
  /// |W|^2 = |W0|^2 + 2 scale <W0, up down> + scale^2 |up down|^2.
  at::Tensor gain(const at::Tensor& w0, const FactoredResidual::Pair& pair) const;

  /// W times a gain.
  at::Tensor scale(const at::Tensor& w, const at::Tensor& gain) const;

  Side side() const { return side_; }
  Parameters parameters() const { return {{"m", m_}}; }
  /// |W0|, at which the frozen weight is itself.
  Parameters starts() const { return {{"m", m_start_}}; }

 private:
  /// m over the roots of |W|^2.
  at::Tensor over(const std::function<at::Tensor()>& squares) const;

  Side side_;
  bool detached_;
  at::Tensor m_, m_start_;
  mutable at::Tensor base_squares_;  ///< |W0|^2 in the type that was asked for last
};

}  // namespace ringlet::adapt
