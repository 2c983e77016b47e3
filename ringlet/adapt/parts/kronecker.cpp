#include "ringlet/adapt/parts/kronecker.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/fit/fit_closed_form.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

double scale_of(const KroneckerOptions& options) {
  return options.alpha / static_cast<double>(options.rank);
}

}  // namespace

std::pair<std::int64_t, std::int64_t> Kronecker::split(std::int64_t n, std::int64_t f) {
  if (f > 0 && n % f == 0) return std::minmax(f, n / f);
  const std::int64_t most = f < 0 ? n : f;
  std::pair<std::int64_t, std::int64_t> best = {1, n};
  for (std::int64_t m = 1; m <= most && m * m <= n; ++m)
    if (n % m == 0) best = {m, n / m};
  return best;
}

Kronecker::Kronecker(const LayerShape& shape, const KroneckerOptions& options, RandomStream random)
    : shape_(shape), options_(options) {
  const auto [a, b] = options.out;
  const std::int64_t c = options.in.first, d = options.in.second;
  if (a * b != shape.out || (c * d != shape.in && c * d != shape.patch()))
    throw Error(ErrorCode::invalid_argument, "lokr",
                std::to_string(a) + "x" + std::to_string(b) + " and " + std::to_string(c) + "x" +
                    std::to_string(d) + " do not make a weight of " + std::to_string(shape.out) +
                    "x" + std::to_string(shape.in));
  if (options.tucker && flat())
    throw Error(ErrorCode::invalid_argument, "lokr",
                "a Tucker core has the kernel's positions already; in=" + std::to_string(c) + "x" +
                    std::to_string(d) + " counts them again");
  const std::int64_t r = options.rank;
  const bool kernel = shape.convolution && !flat();
  const auto with_kernel = [&](std::int64_t rows) -> std::vector<std::int64_t> {
    if (!kernel) return {rows, d};
    return {rows, d, shape.kernel_height, shape.kernel_width};
  };
  if (options.factored_1) {
    w1_a_ = kaiming_start({a, r}, random);
    w1_b_ = kaiming_start({r, c}, random);
  } else {
    w1_ = kaiming_start({a, c}, random);
  }
  if (options.tucker) {
    t2_ = kaiming_start({r, r, shape.kernel_height, shape.kernel_width}, random);
    w2_a_ = kaiming_start({r, b}, random);
    w2_b_ = at::zeros({r, d});
  } else if (options.factored_2) {
    w2_a_ = kaiming_start({b, r}, random);
    w2_b_ = at::zeros(with_kernel(r));
  } else {
    w2_ = at::zeros(with_kernel(b));
  }
  for (const auto& [name, tensor] : parameters()) tensor.set_requires_grad(true);
}

Parameters Kronecker::parameters() const {
  Parameters named;
  for (const auto& [name, tensor] : Parameters{{"w1", w1_},
                                               {"w1_a", w1_a_},
                                               {"w1_b", w1_b_},
                                               {"w2", w2_},
                                               {"w2_a", w2_a_},
                                               {"w2_b", w2_b_},
                                               {"t2", t2_}})
    if (tensor.defined()) named.emplace_back(name, tensor);
  return named;
}

at::Tensor Kronecker::w1() const { return w1_.defined() ? w1_ : at::matmul(w1_a_, w1_b_); }

std::pair<at::Tensor, at::Tensor> Kronecker::w2_steps() const {
  if (w2_.defined()) return {w2_, {}};
  if (t2_.defined()) return {at::einsum("ijkl,jd->idkl", {t2_, w2_b_}), w2_a_.t()};
  return {w2_b_, w2_a_};
}

at::Tensor Kronecker::w2() const {
  const auto [first, second] = w2_steps();
  if (!second.defined()) return first;
  return at::matmul(second, first.flatten(1)).unflatten(1, first.sizes().slice(1));
}

at::Tensor Kronecker::weight() const {
  const at::Tensor one = scale_of(options_) * w1(), two = w2();
  const at::Tensor product =
      at::einsum("ac,bdp->abcdp", {one, two.dim() == 2 ? two.unsqueeze(-1) : two.flatten(2)});
  return product.reshape(shape_.sizes());
}

bool Kronecker::approach(const at::Tensor& difference, bool first) {
  if (options_.tucker) return false;
  const at::NoGradGuard no_grad;
  const auto [a, b] = options_.out;
  const auto [c, d] = options_.in;
  // Rows are the places of w1, columns those of w2: D = s w1 ⊗ w2 is s vec(w1) vec(w2)^t.
  const at::Tensor places = (difference / scale_of(options_))
                                .reshape({a, b, c, d, -1})
                                .permute({0, 2, 1, 3, 4})
                                .reshape({a * c, -1});
  const auto best_for = [&](const at::Tensor& other, const at::Tensor& matrix) {
    constexpr double kLeast = 1e-30;
    const at::Tensor flat = other.reshape({-1});
    return at::mv(matrix, flat) / (flat.square().sum() + kLeast);
  };
  const auto set = [](const at::Tensor& whole, const at::Tensor& left, const at::Tensor& right,
                      const at::Tensor& value) {
    if (whole.defined()) {
      whole.copy_(value.view(whole.sizes()));
      return;
    }
    const LowRankProduct product = best_low_rank(value, left.size(1));
    left.copy_(product.left);
    right.copy_(product.right.view(right.sizes()));
  };
  at::Tensor one = w1().reshape({-1});
  if (first) {
    constexpr int kRounds = 10;  // of the power iteration
    for (int i = 0; i < kRounds; ++i) {
      one = at::mv(places, at::mv(places.t(), one));
      one = one / one.norm().clamp_min(1e-30);
    }
  }
  set(w2_, w2_a_, w2_b_, best_for(one, places.t()).view({b, -1}));
  set(w1_, w1_a_, w1_b_, best_for(w2(), places).view({a, c}));
  return true;
}

at::Tensor Kronecker::forward(const nn::Layer& layer, const at::Tensor& x) const {
  const auto type = x.scalar_type();
  if (flat() && shape_.convolution) return layer.operate(weight().to(type), {}, x);
  const auto [first, second] = w2_steps();
  const at::Tensor left = (scale_of(options_) * w1()).to(type);
  const std::int64_t c = options_.in.first;
  if (!shape_.convolution) {
    const at::Tensor rows = x.reshape({-1, c, options_.in.second});
    at::Tensor y = at::matmul(left, at::linear(rows, first.to(type)));  // [N, a, rank or b]
    if (second.defined()) y = at::linear(y, second.to(type));
    std::vector<std::int64_t> shape = x.sizes().vec();
    shape.back() = shape_.out;
    return y.view(shape);
  }
  // The c groups of channels as so many pictures.
  const at::Tensor groups = x.reshape({-1, options_.in.second, x.size(2), x.size(3)});
  const at::Tensor narrow = layer.operate(first.to(type), {}, groups);  // [B c, rank or b, h, w]
  const at::Tensor split = narrow.reshape({x.size(0), c, narrow.size(1), -1});
  at::Tensor y = at::einsum("ac,ncqp->naqp", {left, split});
  if (second.defined()) y = at::einsum("bq,naqp->nabp", {second.to(type), y});
  return y.reshape({x.size(0), shape_.out, narrow.size(2), narrow.size(3)});
}

double Kronecker::multiply_adds() const {
  const auto [a, b] = options_.out;
  const auto [c, d] = options_.in;
  const std::int64_t positions = flat() ? 1 : shape_.positions();
  const std::int64_t middle = w2_.defined() ? b : options_.rank;
  const std::int64_t last = w2_.defined() ? 0 : a * middle * b;
  // Its arrays are small and laid out anew between the products: slower than large ones.
  constexpr double kSmall = 2.0;
  return kSmall * static_cast<double>(c * d * positions * middle + a * c * middle + last);
}

double Kronecker::forming() const {
  constexpr double kCopies = 4.0;  // written in one order, read in another
  return kCopies * static_cast<double>(shape_.out * shape_.patch());
}

}  // namespace ringlet::adapt
