#include "ringlet/adapt/parts/foura.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/fft_fft.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/real.h>
#include <ATen/ops/zeros.h>

namespace ringlet::adapt {

Foura::Foura(const LayerShape& shape, std::int64_t rank, double scale, bool gate,
             RandomStream random)
    : FactoredResidual(shape, 2 * rank), scale_(scale) {
  down_ = kaiming_start(shape.with_rows(rank), random).set_requires_grad(true);
  up_ = at::zeros({shape.out, rank}).set_requires_grad(true);
  if (gate) gate_ = at::zeros({rank}).set_requires_grad(true);
}

Parameters Foura::parameters() const {
  Parameters named = {{"down", down_}, {"up", up_}};
  if (gate_.defined()) named.emplace_back("gate", gate_);
  return named;
}

FactoredResidual::Pair Foura::factors() const {
  // F is symmetric: down F transforms the rows of down, and F^-1 up conjugates the columns' one.
  const at::Tensor down = at::fft_fft(down_, {}, 1, "ortho");
  const at::Tensor gated = gate_.defined() ? up_ * (2.0 * gate_.sigmoid()) : up_;
  const at::Tensor up = at::fft_fft(gated, {}, 0, "ortho").conj();
  // Re((a + bi)(c + di)) = ac - bd
  return {at::cat({at::real(down), -at::imag(down)}), at::cat({at::real(up), at::imag(up)}, 1),
          scale_};
}

}  // namespace ringlet::adapt
