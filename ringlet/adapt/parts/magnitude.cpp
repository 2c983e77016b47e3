#include "ringlet/adapt/parts/magnitude.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace ringlet::adapt {
namespace {

/// Sums of an array like the weight, [out, in, positions], over all axes but the side's.
at::Tensor sums(const at::Tensor& like_weight, Side side) {
  const at::Tensor three = like_weight.flatten(2);
  return side == Side::output ? three.sum(at::IntArrayRef{1, 2}) : three.sum(at::IntArrayRef{0, 2});
}

at::Tensor squares_of(const at::Tensor& w, Side side) { return sums(three_axes(w).square(), side); }

/// The same of w0 + s up down, with that of w0: |w0|^2 + <2 s w0 down^t + s^2 up down down^t, up>.
at::Tensor squares_of(const at::Tensor& w0, const at::Tensor& base_squares,
                      const FactoredResidual::Pair& pair, Side side) {
  const at::Tensor& up = pair.up;
  const at::Tensor down = pair.down.flatten(1).to(up.scalar_type());
  const at::Tensor flat = w0.to(up.scalar_type()).flatten(1);
  const double s = pair.scale;
  if (side == Side::output) {
    const at::Tensor both =
        at::addmm(at::matmul(flat, down.t()), up, at::matmul(down, down.t()), 2.0 * s, s * s);
    return base_squares + (both * up).sum(1);
  }
  const at::Tensor both =
      at::addmm(at::matmul(up.t(), flat), at::matmul(up.t(), up), down, 2.0 * s, s * s);
  return base_squares + (both * down).sum(0).view({w0.size(1), -1}).sum(1);
}

}  // namespace

Magnitude::Magnitude(const at::Tensor& w0, Side side, bool detached)
    : side_(side),
      detached_(detached),
      m_start_(squares_of(w0.detach().to(at::kFloat), side).sqrt()) {
  m_ = m_start_.clone().set_requires_grad(true);
}

at::Tensor Magnitude::over(const std::function<at::Tensor()>& squares) const {
  // A norm of zero belongs to a row of zeros, which no factor changes.
  if (detached_) {
    at::Tensor inverse;
    {
      const at::NoGradGuard no_grad;
      const at::Tensor of_rows = squares();
      inverse = at::where(of_rows > 0, of_rows.rsqrt(), 0.0);
    }
    return m_.to(inverse.scalar_type()) * inverse;
  }
  const at::Tensor of_rows = squares(), zero = of_rows <= 0;
  // The inner `where` keeps the root's infinite derivative out of the backward pass.
  const at::Tensor norm = at::where(zero, 1.0, of_rows).sqrt();
  return at::where(zero, 0.0, m_.to(norm.scalar_type()) / norm);
}

at::Tensor Magnitude::gain(const at::Tensor& w) const {
  return over([&] { return squares_of(w, side_); });
}

at::Tensor Magnitude::gain(const at::Tensor& w0, const FactoredResidual::Pair& pair) const {
  const at::ScalarType type = pair.up.scalar_type();
  if (!base_squares_.defined() || base_squares_.scalar_type() != type ||
      base_squares_.device() != w0.device()) {
    const at::NoGradGuard no_grad;
    base_squares_ = squares_of(w0.to(type), side_);
  }
  return over([&] { return squares_of(w0, base_squares_, pair, side_); });
}

at::Tensor Magnitude::scale(const at::Tensor& w, const at::Tensor& gain) const {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(w.dim()), 1);
  shape[side_ == Side::output ? 0 : 1] = gain.numel();
  return w * gain.view(shape);
}

}  // namespace ringlet::adapt
