#include "ringlet/adapt/tr.h"

#include <cmath>
#include <span>

#include <ATen/ops/einsum.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/ring.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

at::Tensor random_core(std::int64_t size, std::int64_t rank, RandomStream& random) {
  return normal_start({size, rank, rank},
                      1.0 / (static_cast<double>(size) * std::sqrt(static_cast<double>(rank))),
                      random);
}

}  // namespace

TensorRing::TensorRing(const LayerShape& shape, const Factors& out, const Factors& in,
                       std::int64_t rank, RandomStream random)
    : FactoredResidual(shape, rank * rank) {
  if (rank < 1) throw Error(ErrorCode::invalid_argument, "tr", "the rank must be at least 1");
  for (const std::int64_t factor : out)
    out_.push_back(out_.empty() ? at::zeros({factor, rank, rank})
                                : random_core(factor, rank, random));
  for (const std::int64_t factor : in) in_.push_back(random_core(factor, rank, random));
  if (shape.positions() > 1) kernel_ = random_core(shape.positions(), rank, random);
  for (const auto& [name, core] : parameters()) core.set_requires_grad(true);
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
  // up[i, (a, b)] = (B^1 … B^D)[i][a, b], down[(a, b), j] = (C^1 … C^D)[j][b, a]
  const at::Tensor up = chain_of_vectors(out_).narrow(0, 0, shape_.out).flatten(1);
  const at::Tensor in = chain_of_vectors(in_).narrow(0, 0, shape_.in);
  if (!shape_.convolution) return {in.permute({2, 1, 0}).flatten(0, 1), up};
  const at::Tensor down = kernel_.defined() ? at::einsum("jbc,kca->abjk", {in, kernel_})
                                            : in.permute({2, 1, 0}).unsqueeze(-1);
  return {down.flatten(0, 1).unflatten(-1, {shape_.kernel_height, shape_.kernel_width}), up};
}

}  // namespace ringlet::adapt
