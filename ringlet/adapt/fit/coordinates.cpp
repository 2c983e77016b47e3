#include "ringlet/adapt/fit/coordinates.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros_like.h>

namespace ringlet::adapt {
namespace {

/// A core as a matrix whose columns share their Gram matrix.
at::Tensor as_matrix(const at::Tensor& core) {
  return core.dim() == 4 ? core.permute({0, 2, 3, 1}).flatten(0, 2)
                         : core.permute({1, 2, 0}).flatten(0, 1);
}

at::Tensor as_core(const at::Tensor& matrix, at::IntArrayRef sizes) {
  return sizes.size() == 4
             ? matrix.view({sizes[0], sizes[2], sizes[3], sizes[1]}).permute({0, 3, 1, 2})
             : matrix.view({sizes[1], sizes[2], sizes[0]}).permute({2, 0, 1});
}

}  // namespace

Coordinates::Coordinates(std::vector<at::Tensor> tensors, const std::vector<at::Tensor>& grams)
    : tensors_(std::move(tensors)) {
  // Steps along what one core alone hardly changes would be long, and wrong for all together.
  constexpr double kRidge = 0.1;
  for (const at::Tensor& gram : grams) {
    const at::Tensor one = at::eye(gram.size(0), gram.options());
    const double mean = gram.trace().item<double>() / static_cast<double>(gram.size(0));
    constexpr double kLeast = 1e-30;
    const at::Tensor lower = at::linalg_cholesky(gram + (kRidge * mean + kLeast) * one);
    roots_.push_back(lower.t());
    inverses_.push_back(at::linalg_solve_triangular(lower, one, /*upper=*/false));
  }
}

at::Tensor Coordinates::combined(const std::vector<at::Tensor>& values,
                                 const std::vector<at::Tensor>& factors) const {
  std::vector<at::Tensor> flat;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const at::Tensor value = values[i].detach().to(at::kDouble);
    flat.push_back(
        (factors.empty() ? value : at::matmul(factors[i], as_matrix(value))).reshape({-1}));
  }
  return at::cat(flat);
}

at::Tensor Coordinates::point() const { return combined(tensors_, roots_); }

void Coordinates::move_to(const at::Tensor& y) const {
  const at::NoGradGuard no_grad;
  std::int64_t first = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const at::Tensor& tensor = tensors_[i];
    const at::Tensor piece = y.narrow(0, first, tensor.numel());
    first += tensor.numel();
    if (inverses_.empty()) {
      tensor.copy_(piece.view(tensor.sizes()));
      continue;
    }
    const at::Tensor& inverse = inverses_[i];
    const at::Tensor matrix = at::matmul(inverse.t(), piece.view({inverse.size(0), -1}));
    tensor.copy_(as_core(matrix, tensor.sizes()));
  }
}

at::Tensor Coordinates::take_gradient() const {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& tensor : tensors_) {
    const at::Tensor& gradient = tensor.grad();
    gradients.push_back(gradient.defined() ? gradient : at::zeros_like(tensor));
    tensor.mutable_grad() = at::Tensor();
  }
  return combined(gradients, inverses_);
}

}  // namespace ringlet::adapt
