#include "ringlet/nn/norm.h"

#include <array>
#include <tuple>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/native_group_norm.h>
#include <ATen/ops/native_group_norm_backward.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/layer_scope.h"

namespace ringlet::nn {

namespace {

/// Scale or shift in the type of the input: CUDA's kernels take no others. Networks that learn keep
/// them in fp32.
at::Tensor like_input(const at::Tensor& parameter, const at::Tensor& x) {
  return parameter.to(x.scalar_type());
}

/// at::native_group_norm and its gradient for x [B, C, ...], in the layout that they take.
class GroupNormOf {
 public:
  GroupNormOf(const at::Tensor& x, std::int64_t groups, double epsilon)
      : x_(x.is_cpu() ? x.contiguous(x.suggest_memory_format()) : x.contiguous()),
        rows_(x.size(0)),
        channels_(x.size(1)),
        pixels_(x.numel() / (x.size(0) * x.size(1))),
        groups_(groups),
        epsilon_(epsilon) {}

  /// The result, and the groups' means and inverse deviations.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(const at::Tensor& weight,
                                                         const at::Tensor& bias) const {
    return at::native_group_norm(x_, weight, bias, rows_, channels_, pixels_, groups_, epsilon_);
  }

  /// Of x, the scale and the shift, where they are wanted.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& gradient,
                                                          const at::Tensor& mean,
                                                          const at::Tensor& inverse_deviation,
                                                          const at::Tensor& weight,
                                                          std::array<bool, 3> wanted) const {
    const at::Tensor dy =
        x_.is_cpu() ? gradient.contiguous(x_.suggest_memory_format()) : gradient.contiguous();
    return at::native_group_norm_backward(dy, x_, mean, inverse_deviation, weight, rows_, channels_,
                                          pixels_, groups_, wanted);
  }

 private:
  at::Tensor x_;
  std::int64_t rows_, channels_, pixels_, groups_;
  double epsilon_;
};

/// SiLU of the normalised x. The backward pass normalises again, which takes a fraction of the
/// convolution that follows: so neither the result of the norm is kept, nor, on CUDA, x in the
/// layout that the norm takes.
struct NormSiluFunction : torch::autograd::Function<NormSiluFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias, std::int64_t groups,
                            double epsilon) {
    context->save_for_backward({x, weight, bias});
    context->saved_data["groups"] = groups;
    context->saved_data["epsilon"] = epsilon;
    const at::NoGradGuard no_grad;
    return nn::silu(std::get<0>(GroupNormOf(x, groups, epsilon).forward(weight, bias)));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const GroupNormOf norm(x, context->saved_data["groups"].toInt(),
                           context->saved_data["epsilon"].toDouble());
    auto [normed, mean, inverse_deviation] = norm.forward(weight, bias);
    const std::array<bool, 3> wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                                        context->needs_input_grad(2)};
    const at::Tensor dnormed = at::silu_backward(gradients.front(), normed);
    normed.reset();  // as large as x, and done with
    const auto [dx, dweight, dbias] =
        norm.backward(dnormed, mean, inverse_deviation, weight, wanted);
    return {dx, dweight, dbias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

GroupNorm::GroupNorm(const WeightSource& source, std::int64_t groups, std::int64_t channels,
                     double epsilon)
    : weight_(source.get("weight", {channels}, Init::constant(1.0))),
      bias_(source.get("bias", {channels}, Init::constant(0.0))),
      groups_(groups),
      epsilon_(epsilon) {}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  const LayerScope scope(LayerKind::norm);
  return at::group_norm(x, groups_, like_input(weight_, x), like_input(bias_, x), epsilon_);
}

at::Tensor GroupNorm::with_silu(const at::Tensor& x) const {
  if (!c10::GradMode::is_enabled()) return nn::silu((*this)(x));
  return NormSiluFunction::apply(x, like_input(weight_, x), like_input(bias_, x), groups_,
                                 epsilon_);
}

LayerNorm::LayerNorm(const WeightSource& source, std::int64_t channels, double epsilon)
    : weight_(source.get("weight", {channels}, Init::constant(1.0))),
      bias_(source.get("bias", {channels}, Init::constant(0.0))),
      epsilon_(epsilon) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  const LayerScope scope(LayerKind::norm);
  return at::layer_norm(x, weight_.sizes(), like_input(weight_, x), like_input(bias_, x), epsilon_);
}

BatchNorm::BatchNorm(const WeightSource& source, std::int64_t channels, double epsilon)
    : weight_(source.get("weight", {channels}, Init::constant(1.0))),
      bias_(source.get("bias", {channels}, Init::constant(0.0))),
      mean_(source.get("running_mean", {channels}, Init::constant(0.0)).detach()),
      variance_(source.get("running_var", {channels}, Init::constant(1.0)).detach()),
      epsilon_(epsilon),
      own_(source.options().trainable) {
  if (source.has("num_batches_tracked")) source.get("num_batches_tracked", {});
}

at::Tensor BatchNorm::operator()(const at::Tensor& x, Statistics statistics) const {
  const bool of_batch = statistics == Statistics::batch;
  if (of_batch && !own_)
    throw Error(ErrorCode::invalid_argument, "batch normalisation",
                "running averages of a frozen network are not updated",
                "load it with WeightOptions::trainable, or use the stored statistics");
  if (of_batch && x.numel() <= x.size(1))
    throw Error(ErrorCode::invalid_argument, "batch normalisation",
                "a batch with one number per channel has no variance", "use larger batches");
  const LayerScope scope(LayerKind::norm);
  constexpr double kMomentum = 0.1;
  return at::batch_norm(x, weight_, bias_, mean_, variance_, of_batch, kMomentum, epsilon_,
                        /*cudnn_enabled=*/true);
}

at::Tensor silu(at::Tensor x) {
  const LayerScope scope(LayerKind::activation);
  return c10::GradMode::is_enabled() ? at::silu(x) : at::silu_(x);
}

Embedding::Embedding(const WeightSource& source, std::int64_t count, std::int64_t width)
    : weight_(source.get("weight", {count, width}, Init::normal(0.02))),
      dtype_(source.options().dtype) {}

at::Tensor Embedding::operator()(const at::Tensor& ids) const {
  return at::embedding(weight_, ids).to(dtype_);
}

void Embedding::append(const at::Tensor& rows) {
  // A table in a narrower type than the rows is widened: rows that were learnt keep their digits.
  const auto type = c10::promoteTypes(weight_.scalar_type(), rows.scalar_type());
  // In the same handle, which the network's index has as well.
  weight_.set_data(at::cat({weight_.to(type), rows.to(weight_.device(), type)}));
}

}  // namespace ringlet::nn
