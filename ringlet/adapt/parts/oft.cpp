#include "ringlet/adapt/parts/oft.h"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_det.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/triu_indices.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/parts/block_product.h"
#include "ringlet/adapt/parts/cayley.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::adapt {

std::int64_t nearest_divisor(std::int64_t width, std::int64_t wanted) {
  if (wanted >= width) return width;
  std::int64_t lower = std::max<std::int64_t>(1, wanted), upper = lower;
  while (width % lower != 0) --lower;
  while (width % upper != 0) ++upper;
  return wanted - lower <= upper - wanted ? lower : upper;
}

Oft::Oft(std::int64_t width, const OftOptions& options) : width_(width), options_(options) {
  const std::int64_t b = options.block;
  if (b < 1 || width % b != 0)
    throw Error(ErrorCode::invalid_argument, "oft",
                "blocks of " + std::to_string(b) + " do not divide " + std::to_string(width));
  constexpr std::int64_t kMostTerms = 64;
  if (options.neumann > kMostTerms)
    throw Error(ErrorCode::unsupported, "oft(terms=" + std::to_string(options.neumann) + ")",
                "a series has at most 64 terms", "use cayley=exact");
  const std::int64_t count = options.share ? 1 : width / b;
  blocks_ = options.triangle ? at::zeros({count, b * (b - 1) / 2}) : at::zeros({count, b, b});
  blocks_.set_requires_grad(true);
  rotations_ = rotations(false);
  transposed_ = rotations(true);
}

namespace {

/// The blocks of T […, n, b, b] from its parameters.
at::Tensor rotations_of(const at::Tensor& blocks, const OftOptions& options, std::int64_t width) {
  at::Tensor q =
      options.triangle ? skew_from_triangle(blocks, options.block) : skew_part(blocks, 1.0);
  if (options.constraint > 0.0) {
    const double most = options.constrain_all
                            ? options.constraint * static_cast<double>(width)
                            : options.constraint / std::sqrt(static_cast<double>(q.size(-3)));
    q = limit_norm(q, most, !options.constrain_all);
  }
  // The transform of Q transposed is that of Q, transposed.
  if (options.transpose) q = -q;
  const at::Tensor r = options.neumann > 0 ? cayley_neumann(q, options.neumann) : cayley(q);
  return r.expand({-1, width / options.block, -1, -1});
}

}  // namespace

Derived Oft::rotations(bool transposed) const {
  // All that the equation depends on is the options and the width.
  std::string name = "oft " + std::to_string(width_) + (transposed ? " transposed" : "");
  for (const double option :
       {static_cast<double>(options_.block), static_cast<double>(options_.neumann),
        static_cast<double>(options_.triangle), static_cast<double>(options_.transpose),
        static_cast<double>(options_.constrain_all), options_.constraint})
    name += " " + exact_number(option);
  return {name, {blocks_}, [options = options_, width = width_, transposed](const Tensors& from) {
            const at::Tensor r = rotations_of(from.front(), options, width);
            return Tensors{packed_blocks(transposed ? r.transpose(-2, -1) : r)};
          }};
}

at::Tensor Oft::forward(const at::Tensor& x) const {
  return block_multiply(rotations_.values(x.scalar_type()).front(), x);
}

at::Tensor Oft::right_multiply(const at::Tensor& w) const {
  return block_multiply(transposed_.values(w.scalar_type()).front(), w);
}

bool Oft::turn(const at::Tensor& from, const at::Tensor& to) {
  const at::NoGradGuard no_grad;
  const std::int64_t b = options_.block;
  const auto blocks = [b](const at::Tensor& x) {
    return x.to(at::kDouble).view({x.size(0), -1, b}).transpose(0, 1);  // [n, N, b]
  };
  // y = x R and y = R x = (x^t R^t)^t: the products that R maximises the scalar product with.
  at::Tensor products = at::matmul(blocks(from).transpose(1, 2), blocks(to));
  if (options_.side == Side::output) products = products.transpose(1, 2);
  if (options_.share) products = products.sum(0, true);
  const auto [u, s, vt] = at::linalg_svd(products, false);
  at::Tensor rotation = at::matmul(u, vt);
  // Without a reflection: the direction that matters least is rotated.
  at::Tensor signs = at::ones({products.size(0), b}, products.options());
  signs.select(1, b - 1).copy_(at::linalg_det(rotation).sign());
  rotation = at::matmul(u * signs.unsqueeze(1), vt);
  const at::Tensor one = at::eye(b, rotation.options());
  const at::Tensor q = std::get<0>(
      at::linalg_solve_ex(rotation + one, rotation - one, false, /*check_errors=*/false));
  constexpr double kLargest = 1e3;
  if (!(q.abs().max().item<double>() < kLargest)) return false;  // NaN, too
  const at::Tensor upper = (options_.transpose ? -q : q).triu(1);
  if (options_.triangle) {
    const at::Tensor places =
        at::triu_indices(b, b, 1, at::TensorOptions(at::kLong).device(q.device()));
    blocks_.copy_(upper.flatten(1).index_select(1, places[0] * b + places[1]));
  } else {
    blocks_.copy_(upper);
  }
  return options_.neumann == 0 && options_.constraint == 0.0;
}

double Oft::multiply_adds() const {
  constexpr std::int64_t kWide = 32;  // small blocks are multiplied together (block_product.cpp)
  return static_cast<double>(width_) *
         static_cast<double>(std::max(options_.block, std::min(kWide, width_)));
}

}  // namespace ringlet::adapt
