// The residual of LoKr (LyCORIS; Edalati et al. 2022, "KronA").
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "ringlet/adapt/fit/approach.h"
#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

struct KroneckerOptions {
  std::int64_t rank = 4;
  double alpha = 4.0;
  std::pair<std::int64_t, std::int64_t> out;  ///< a b = out
  std::pair<std::int64_t, std::int64_t> in;   ///< c d = in, or in * kh * kw for a flat kernel
  bool factored_1 = false;                    ///< w1 = w1_a w1_b
  bool factored_2 = true;                     ///< w2 = w2_a w2_b
  bool tucker = false;                        ///< w2 = sum_ij t2[i, j, k, l] w2_a[i, b] w2_b[j, d]
};

/// D = (alpha / rank) w1 ⊗ w2, w1 [a, c], w2 [b, d(, kh, kw)], each whole or of low rank. Starts at
/// zero in w2 (in w2_b when that is factored), as LyCORIS does.
///
/// Applied as two narrow products: x as a [c, d] array, w2 on its rows, w1 on its columns.
class Kronecker final : public Residual, public Approaching {
 public:
  Kronecker(const LayerShape& shape, const KroneckerOptions& options, RandomStream random);

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override;
  at::Tensor weight() const override;
  Parameters parameters() const override;
  double multiply_adds() const override;
  double forming() const override;

  /// Of w1 and w2 by Van Loan and Pitsianis 1993, of its rank where a factor has one; none for a
  /// Tucker core. Starts at the best pair of whole factors.
  bool approach(const at::Tensor& difference, bool first) override;
  bool turns_suffice() const override { return true; }

  /// The pair of factors of a dimension, the smaller first: f and n / f when f divides n, else the
  /// most balanced split whose first factor is at most f; f = -1 is the most balanced one
  /// (LyCORIS).
  static std::pair<std::int64_t, std::int64_t> split(std::int64_t n, std::int64_t f);

 private:
  bool flat() const { return options_.in.first * options_.in.second != shape_.in; }
  at::Tensor w1() const;
  at::Tensor w2() const;  ///< [b, d] or [b, d, kh, kw]
  /// w2 without its first factor when it has two: what acts on x first.
  std::pair<at::Tensor, at::Tensor> w2_steps() const;

  LayerShape shape_;
  KroneckerOptions options_;
  at::Tensor w1_, w1_a_, w1_b_, w2_, w2_a_, w2_b_, t2_;  ///< those that the form has
};

}  // namespace ringlet::adapt
