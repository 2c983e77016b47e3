#include "ringlet/adapt/parts/magnitude.h"

#include <ATen/core/grad_mode.h>
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

/// The same of w0 + scale up down, with that of w0.
at::Tensor squares_of(const at::Tensor& w0, const at::Tensor& base_squares,
                      const FactoredResidual::Pair& pair, Side side) {
  const at::Tensor up = pair.up * pair.scale;
  const at::Tensor down = pair.down.flatten(1).to(up.scalar_type());
  const at::Tensor base = w0.to(up.scalar_type());
  const at::Tensor flat = base.flatten(1);
  at::Tensor cross, own;
  if (side == Side::output) {
    cross = (at::matmul(flat, down.t()) * up).sum(1);
    own = (at::matmul(up, at::matmul(down, down.t())) * up).sum(1);
  } else {
    const auto per_channel = [&](const at::Tensor& product) {
      return (product * down).sum(0).view({base.size(1), -1}).sum(1);
    };
    cross = per_channel(at::matmul(up.t(), flat));
    own = per_channel(at::matmul(at::matmul(up.t(), up), down));
  }
  return base_squares + 2.0 * cross + own;
}

}  // namespace

Magnitude::Magnitude(const at::Tensor& w0, Side side, bool detached)
    : side_(side),
      detached_(detached),
      m_start_(squares_of(w0.detach().to(at::kFloat), side).sqrt()) {
  m_ = m_start_.clone().set_requires_grad(true);
}

at::Tensor Magnitude::over(const at::Tensor& squares) const {
  // A norm of zero belongs to a row of zeros, which no factor changes. The inner `where` keeps the
  // root's infinite derivative out of the backward pass.
  const at::Tensor zero = squares <= 0;
  const at::Tensor norm = at::where(zero, 1.0, squares).sqrt();
  return at::where(zero, 0.0, m_.to(norm.scalar_type()) / norm);
}

at::Tensor Magnitude::gain(const at::Tensor& w) const {
  if (!detached_) return over(squares_of(w, side_));
  at::Tensor squares;
  {
    const at::NoGradGuard no_grad;
    squares = squares_of(w, side_);
  }
  return over(squares);
}

at::Tensor Magnitude::gain(const at::Tensor& w0, const FactoredResidual::Pair& pair) const {
  const at::ScalarType type = pair.up.scalar_type();
  if (!base_squares_.defined() || base_squares_.scalar_type() != type ||
      base_squares_.device() != w0.device()) {
    const at::NoGradGuard no_grad;
    base_squares_ = squares_of(w0.to(type), side_);
  }
  if (!detached_) return over(squares_of(w0, base_squares_, pair, side_));
  at::Tensor squares;
  {
    const at::NoGradGuard no_grad;
    squares = squares_of(w0, base_squares_, pair, side_);
  }
  return over(squares);
}

at::Tensor Magnitude::scale(const at::Tensor& w, const at::Tensor& gain) const {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(w.dim()), 1);
  shape[side_ == Side::output ? 0 : 1] = gain.numel();
  return w * gain.view(shape);
}

}  // namespace ringlet::adapt
