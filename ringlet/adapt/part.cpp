#include "ringlet/adapt/part.h"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <c10/util/accumulate.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/adapt/kernels/low_rank_kernel.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/kernels.h"

namespace ringlet::adapt {
namespace {

/// Vectors of channels as rows: a view for linear layers and channels-last pictures.
at::Tensor rows(const at::Tensor& x) {
  const at::Tensor last = x.dim() == 4 ? x.permute({0, 2, 3, 1}) : x;
  return last.reshape({-1, last.size(-1)});
}

/// Rows back in the form of `like`, with their own number of channels.
at::Tensor from_rows(const at::Tensor& matrix, const at::Tensor& like) {
  std::vector<std::int64_t> shape = like.sizes().vec();
  if (shape.size() != 4) {
    shape.back() = matrix.size(1);
    return matrix.view(shape);
  }
  return matrix.view({shape[0], shape[2], shape[3], matrix.size(1)}).permute({0, 3, 1, 2});
}

/// y += s narrow up^t along the channels.
void add_product(const at::Tensor& y, double s, const at::Tensor& narrow, const at::Tensor& up) {
  at::Tensor sum = rows(y);  // a copy when y is not channels-last
  nn::kernels_for(y).add_product(sum, s, rows(narrow), up);
  if (!sum.is_alias_of(y)) y.copy_(from_rows(sum, y));
}

/// add_product with its derivatives. In place, since a low rank spends its time on memory, and the
/// product and the sum would be two more arrays of the output's size.
struct AddProduct : torch::autograd::Function<AddProduct> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& y,
                            double s, const at::Tensor& narrow, const at::Tensor& up) {
    context->save_for_backward({narrow, up});
    context->saved_data["s"] = s;
    // Behind autograd's back: y may be another function's view, which could not be marked as
    // changed, and nothing but this sum ever reads it.
    at::Tensor sum = y.detach();
    add_product(sum, s, narrow, up);
    return sum;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = context->get_saved_variables();
    const at::Tensor &narrow = saved[0], &up = saved[1];
    const at::Tensor dy = rows(gradients.front());
    const double s = context->saved_data["s"].toDouble();
    at::Tensor dnarrow, dup;
    if (context->needs_input_grad(1))
      dnarrow = from_rows(matrix_product(dy, up.t()).mul_(s), narrow);
    // The narrower matrix first: it is the one that the product lays out anew.
    if (context->needs_input_grad(2)) dup = matrix_product(rows(narrow).t(), dy.t()).mul_(s).t();
    return {gradients.front(), {}, dnarrow, dup};
  }
};

}  // namespace

LayerShape LayerShape::of(at::IntArrayRef weight) {
  if (weight.size() == 2) return {weight[0], weight[1]};
  return {weight[0], weight[1], weight[2], weight[3], true};
}

std::vector<std::int64_t> LayerShape::sizes() const { return with_rows(out); }

std::vector<std::int64_t> LayerShape::with_rows(std::int64_t first) const {
  if (convolution) return {first, in, kernel_height, kernel_width};
  return {first, in};
}

at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) {
  return nn::kernels_for(a).matrix_product(a, b);
}

at::Tensor Residual::add_to(const at::Tensor& y, double s, const nn::Layer& layer,
                            const at::Tensor& x) const {
  return y.add(forward(layer, x), s);
}

void Residual::scale_ranks(at::Tensor factors) {
  if (factors.defined())
    throw Error(ErrorCode::internal, "adapter", "a residual without ranks cannot leave one out");
}

FactoredResidual::Pair FactoredResidual::pair() const {
  Pair pair = factors();
  if (kept_.defined()) pair.up = pair.up * kept_.to(pair.up.options());
  return pair;
}

at::Tensor FactoredResidual::forward(const nn::Layer& layer, const at::Tensor& x) const {
  const Pair pair = this->pair();
  const auto type = x.scalar_type();
  const at::Tensor narrow = layer.operate(pair.down.to(type), {}, x);
  const at::Tensor up = (pair.scale * pair.up).to(type);
  if (pair.down.dim() == 2) return at::linear(narrow, up);
  // A 1x1 convolution, as a product over channels-last vectors.
  return at::linear(narrow.permute({0, 2, 3, 1}), up).permute({0, 3, 1, 2});
}

at::Tensor FactoredResidual::add_to(const at::Tensor& y, double s, const nn::Layer& layer,
                                    const at::Tensor& x) const {
  const Pair pair = this->pair();
  if (has_low_rank_kernel(y, x, pair.down, pair.up))
    return low_rank_add(y, s * pair.scale, x, pair.down, pair.up);
  const at::Tensor narrow = layer.operate(pair.down.to(x.scalar_type()), {}, x);
  const at::Tensor up = pair.up.to(x.scalar_type());
  if (c10::GradMode::is_enabled()) return AddProduct::apply(y, s * pair.scale, narrow, up);
  add_product(y, s * pair.scale, narrow, up);
  return y;
}

at::Tensor FactoredResidual::weight() const {
  const Pair pair = this->pair();
  const at::Tensor flat = pair.scale * at::matmul(pair.up, pair.down.flatten(1));
  return flat.view(shape_.sizes());
}

double FactoredResidual::multiply_adds() const {
  return static_cast<double>(width_) * static_cast<double>(shape_.patch() + shape_.out);
}

double FactoredResidual::forming() const {
  return static_cast<double>(width_) * static_cast<double>(shape_.patch()) *
         static_cast<double>(shape_.out);
}

at::Tensor three_axes(const at::Tensor& weight) {
  return weight.dim() == 2 ? weight.unsqueeze(-1) : weight.flatten(2);
}

at::Tensor uniform_start(at::IntArrayRef shape, double bound, RandomStream& random) {
  at::Tensor start = at::empty(shape, at::kFloat);
  random.fill_uniform({start.data_ptr<float>(), static_cast<std::size_t>(start.numel())});
  return start.mul_(2.0 * bound).sub_(bound);
}

at::Tensor normal_start(at::IntArrayRef shape, double deviation, RandomStream& random) {
  at::Tensor start = at::empty(shape, at::kFloat);
  random.fill_normal({start.data_ptr<float>(), static_cast<std::size_t>(start.numel())});
  return start.mul_(deviation);
}

at::Tensor kaiming_start(at::IntArrayRef shape, RandomStream& random) {
  const std::int64_t fan_in = c10::multiply_integers(shape.slice(1));
  return uniform_start(shape, 1.0 / std::sqrt(static_cast<double>(fan_in)), random);
}

}  // namespace ringlet::adapt
