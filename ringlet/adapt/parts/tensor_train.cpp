#include "ringlet/adapt/parts/tensor_train.h"

#include <cmath>

#include <ATen/ops/zeros.h>

#include "ringlet/adapt/parts/ring.h"

namespace ringlet::adapt {

TensorTrain::TensorTrain(const LayerShape& shape, const Factors& out, const Factors& in,
                         std::int64_t rank, RandomStream random)
    : FactoredResidual(shape, rank) {
  const auto core = [&](std::int64_t size, std::int64_t before, std::int64_t after) {
    const auto width = static_cast<double>(size * after);
    return normal_start({size, before, after}, 1.0 / std::sqrt(width), random);
  };
  for (const std::int64_t factor : out)
    out_.push_back(out_.empty() ? at::zeros({factor, 1, rank}) : core(factor, rank, rank));
  if (shape.positions() > 1) kernel_ = core(shape.positions(), rank, rank);
  for (std::size_t d = 0; d < in.size(); ++d)
    in_.push_back(core(in[d], rank, d + 1 < in.size() ? rank : 1));
  for (const auto& [name, tensor] : parameters()) tensor.set_requires_grad(true);
  std::vector<at::Tensor> after = in_;
  if (kernel_.defined()) after.insert(after.begin(), kernel_);
  up_ = chain_factor(out_, shape.out, /*turned=*/false);
  down_ = chain_factor(after, shape.in, /*turned=*/false,
                       kernel_.defined() ? std::optional<std::size_t>(0) : std::nullopt);
}

Parameters TensorTrain::parameters() const {
  Parameters named;
  for (std::size_t d = 0; d < out_.size(); ++d)
    named.emplace_back("out_" + std::to_string(d), out_[d]);
  if (kernel_.defined()) named.emplace_back("kernel", kernel_);
  for (std::size_t d = 0; d < in_.size(); ++d)
    named.emplace_back("in_" + std::to_string(d), in_[d]);
  return named;
}

FactoredResidual::Pair TensorTrain::factors() const {
  const at::Tensor up = up_.values().front().t(), down = down_.values().front();
  return {shape_.convolution ? down.view(shape_.with_rows(down.size(0))) : down, up};
}

}  // namespace ringlet::adapt
