#include "ringlet/models/diffusion/rotary.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/polar.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>

namespace ringlet::models {

at::Tensor rotations(const at::Tensor& positions, const std::vector<std::int64_t>& widths,
                     double theta) {
  std::vector<at::Tensor> angles;
  for (std::size_t axis = 0; axis < widths.size(); ++axis) {
    const at::Tensor exponents =
        at::arange(0, widths[axis], 2, positions.options().dtype(at::kDouble)) /
        static_cast<double>(widths[axis]);
    const at::Tensor along = positions.select(1, static_cast<std::int64_t>(axis)).to(at::kDouble);
    angles.push_back(at::outer(along, at::pow(theta, -exponents)));
  }
  const at::Tensor all = at::cat(angles, -1).unsqueeze(1);
  return at::polar(at::ones_like(all), all).to(at::kComplexFloat);
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations) {
  const at::Tensor pairs = at::view_as_complex(x.to(at::kFloat).unflatten(-1, {-1, 2}));
  return at::view_as_real(pairs * rotations).flatten(-2).to(x.scalar_type());
}

}  // namespace ringlet::models
