// Orthogonal fine-tuning (Qiu et al. 2023, "Controlling Text-to-Image Diffusion by Orthogonal
// Finetuning"): a block-diagonal rotation.
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// What the programs that write OFT files do differently; docs/methods.md says who does what.
struct OftOptions {
  std::int64_t block = 32;
  Side side = Side::input;
  bool triangle = true;        ///< a block's numbers: above Q's diagonal, else M with Q = M - M^t
  std::int64_t neumann = 0;    ///< terms of the series, 0 = the exact Cayley transform
  bool share = false;          ///< one block for all
  bool transpose = false;      ///< T = R^t
  double constraint = 0.0;     ///< COFT's c, 0 = off
  bool constrain_all = false;  ///< ‖Q‖ <= c width over all blocks, else <= c / sqrt(n) for each
};

/// T = diag(R_1, …, R_n) or its transpose, R_k the Cayley transform of a skew-symmetric Q_k, which
/// starts at zero.
class Oft final : public Transform {
 public:
  /// Throws Error(invalid_argument) when the block does not divide the width.
  Oft(std::int64_t width, const OftOptions& options);

  Side side() const override { return options_.side; }
  std::int64_t width() const override { return width_; }
  at::Tensor forward(const at::Tensor& x) const override;
  at::Tensor right_multiply(const at::Tensor& w) const override;
  Parameters parameters() const override { return {{"blocks", blocks_}}; }
  std::vector<const Derived*> derived() const override { return {&rotations_, &transposed_}; }
  double multiply_adds() const override;
  double written() const override { return 2.0 * static_cast<double>(width_); }

  /// Sets the parameters for which T turns the vectors `from` [N, width] into `to` as well as
  /// rotations of its blocks can, x T for the input's side and T x for the output's (Schönemann
  /// 1966, "A generalized solution of the orthogonal Procrustes problem"). False where these are no
  /// best parameters: the constraint or the series change what comes of them, or a block turns by
  /// nearly half a circle, which the Cayley transform does not reach.
  bool turn(const at::Tensor& from, const at::Tensor& to);

 private:
  Derived rotations(bool transposed) const;

  std::int64_t width_;
  OftOptions options_;
  at::Tensor blocks_;
  Derived rotations_, transposed_;  ///< the blocks of T and its transpose, packed
};

/// The divisor of `width` that is nearest to `wanted`, the smaller of two (PEFT's rule).
std::int64_t nearest_divisor(std::int64_t width, std::int64_t wanted);

}  // namespace ringlet::adapt
