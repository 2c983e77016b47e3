// Butterfly orthogonal fine-tuning (Liu et al. 2024, "Parameter-Efficient Orthogonal Finetuning via
// Butterfly Factorization").
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// What the programs that write BOFT files do differently; docs/methods.md says who does what.
struct BoftOptions {
  std::int64_t block = 4;    ///< even
  std::int64_t factors = 2;  ///< m
  Side side = Side::input;
  bool interleaved = false;  ///< a pair's halves alternate inside a block, else follow each other
  bool half = true;          ///< Q = (M - M^t) / 2, else M - M^t
  double constraint = 0.0;   ///< ‖Q‖ <= c width over all blocks, 0 = off
};

/// T from m factors, which W0 meets in turn. Factor i brings numbers together that lie 2^i half
/// blocks apart, and rotates them in blocks: P_i diag(R_1, …, R_n) P_i^t. All start at the
/// identity.
class Boft final : public Transform {
 public:
  /// Throws Error(unsupported) unless block 2^(m - 1) divides the width and the block is even.
  Boft(std::int64_t width, const BoftOptions& options);

  Side side() const override { return options_.side; }
  std::int64_t width() const override { return width_; }
  at::Tensor forward(const at::Tensor& x) const override;
  at::Tensor right_multiply(const at::Tensor& w) const override;
  Parameters parameters() const override { return {{"blocks", blocks_}}; }
  std::vector<const Derived*> derived() const override { return {&rotations_, &transposed_}; }
  double multiply_adds() const override;
  double written() const override;

 private:
  Derived rotations(bool transposed) const;
  at::Tensor apply(const at::Tensor& x, bool last_first, const Derived& rotations) const;

  std::int64_t width_;
  BoftOptions options_;
  at::Tensor blocks_;               ///< M, [m, n, b, b]
  Derived rotations_, transposed_;  ///< for each factor its blocks, packed, and their transposes
};

}  // namespace ringlet::adapt
