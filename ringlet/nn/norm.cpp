#include "ringlet/nn/norm.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/layer_scope.h"

namespace ringlet::nn {

namespace {

/// Scale or shift in the type of the input: CUDA's kernels take no others. Networks that learn keep
/// them in fp32.
at::Tensor like_input(const at::Tensor& parameter, const at::Tensor& x) {
  return parameter.to(x.scalar_type());
}

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
  weight_ = at::cat({weight_.to(type), rows.to(weight_.device(), type)});
}

}  // namespace ringlet::nn
