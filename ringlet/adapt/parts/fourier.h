// FourierFT (Gao et al. 2024, "Parameter-Efficient Fine-Tuning with Discrete Fourier Transform").
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// D = scale Re ifft2(S), S a [out, in * kh * kw] array that is zero but for n trainable numbers.
/// Their places are the first n of torch's CPU permutation of all for a seed, as in PEFT, whose
/// files hold the numbers alone. Starts at zero.
class Fourier final : public Residual {
 public:
  /// n is cut to the number of places.
  Fourier(const LayerShape& shape, std::int64_t n, double scale, std::uint64_t seed);

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override;
  at::Tensor weight() const override;
  Parameters parameters() const override { return {{"spectrum", spectrum_}}; }
  std::vector<at::Tensor> frozen() const override { return {rows_, columns_}; }
  double multiply_adds() const override;
  double forming() const override;

 private:
  LayerShape shape_;
  double scale_;
  at::Tensor spectrum_;        ///< [n]
  at::Tensor rows_, columns_;  ///< [n] each
};

}  // namespace ringlet::adapt
