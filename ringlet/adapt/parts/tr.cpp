#include "ringlet/adapt/parts/tr.h"

#include <cmath>

#include <ATen/ops/zeros.h>

#include "ringlet/adapt/parts/ring.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

/// sqrt(R) / (f R) for a core with f slices.
double paper_deviation(std::int64_t size, std::int64_t rank) {
  return 1.0 / (static_cast<double>(size) * std::sqrt(static_cast<double>(rank)));
}

/// Of n cores whose product is to have the variance 1 / (3 f_1 … f_n): a product of n matrices
/// R x R sums R^(n-1) terms.
double kaiming_deviation(std::int64_t size, std::int64_t rank, std::size_t cores) {
  const auto r = static_cast<double>(rank);
  return std::pow(r / 3.0, 0.5 / static_cast<double>(cores)) /
         std::sqrt(r * static_cast<double>(size));
}

}  // namespace

TensorRing::TensorRing(const LayerShape& shape, const Factors& out, const Factors& in,
                       std::int64_t rank, TensorRingStart start, RandomStream random)
    : FactoredResidual(shape, rank * rank) {
  if (rank < 1) throw Error(ErrorCode::invalid_argument, "tr", "the rank must be at least 1");
  const bool paper = start == TensorRingStart::paper;
  const std::size_t modes = in.size() + (shape.positions() > 1 ? 1 : 0);
  const auto up_core = [&](std::int64_t size) {
    const double kept = 1.0 / std::sqrt(static_cast<double>(rank));
    return normal_start({size, rank, rank}, paper ? paper_deviation(size, rank) : kept, random);
  };
  const auto down_core = [&](std::int64_t size) {
    return normal_start({size, rank, rank},
                        paper ? paper_deviation(size, rank) : kaiming_deviation(size, rank, modes),
                        random);
  };
  for (const std::int64_t factor : out)
    out_.push_back(out_.empty() ? at::zeros({factor, rank, rank}) : up_core(factor));
  for (const std::int64_t factor : in) in_.push_back(down_core(factor));
  if (shape.positions() > 1) kernel_ = down_core(shape.positions());
  for (const auto& [name, core] : parameters()) core.set_requires_grad(true);
  std::vector<at::Tensor> before = in_;
  if (kernel_.defined()) before.push_back(kernel_);
  // up[i, (a, b)] = (B^1 … B^D)[i][a, b], down[(a, b), j] = (C^1 … C^D)[j][b, a]
  up_ = chain_factor(out_, shape.out, /*turned=*/false);
  down_ = chain_factor(before, shape.in, /*turned=*/true,
                       kernel_.defined() ? std::optional(in_.size()) : std::nullopt);
}

Parameters TensorRing::parameters() const {
  Parameters named;
  for (std::size_t d = 0; d < out_.size(); ++d)
    named.emplace_back("out_" + std::to_string(d), out_[d]);
  for (std::size_t d = 0; d < in_.size(); ++d)
    named.emplace_back("in_" + std::to_string(d), in_[d]);
  if (kernel_.defined()) named.emplace_back("kernel", kernel_);
  return named;
}

FactoredResidual::Pair TensorRing::factors() const {
  const at::Tensor up = up_.values().front().t(), down = down_.values().front();
  return {shape_.convolution ? down.view(shape_.with_rows(down.size(0))) : down, up};
}

}  // namespace ringlet::adapt
