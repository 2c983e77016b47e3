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
  // F is symmetric: down F transforms the rows of down, and F^-1 up conjugates the columns' one.
  // Re((a + bi)(c + di)) = ac - bd
  down_factor_ = {"foura down", {down_}, [](const Tensors& from) -> Tensors {
                    const at::Tensor down = at::fft_fft(from[0], {}, 2, "ortho");
                    return {at::cat({at::real(down), -at::imag(down)}, 1)};
                  }};
  up_factor_ = {"foura up", gate ? Tensors{up_, gate_} : Tensors{up_},
                [gate](const Tensors& from) -> Tensors {
                  const at::Tensor gated =
                      gate ? from[0] * (2.0 * from[1].sigmoid()).unsqueeze(1) : from[0];
                  const at::Tensor up = at::fft_fft(gated.transpose(1, 2), {}, 2, "ortho").conj();
                  return {at::cat({at::real(up), at::imag(up)}, 1)};
                }};
}

Parameters Foura::parameters() const {
  Parameters named = {{"down", down_}, {"up", up_}};
  if (gate_.defined()) named.emplace_back("gate", gate_);
  return named;
}

FactoredResidual::Pair Foura::factors() const {
  return {down_factor_.values().front(), up_factor_.values().front().t(), scale_};
}

}  // namespace ringlet::adapt
