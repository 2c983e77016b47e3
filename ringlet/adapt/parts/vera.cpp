#include "ringlet/adapt/parts/vera.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

/// Uniform in +-sqrt(6 / fan-in), the Kaiming bound for a gain of sqrt(2).
at::Tensor projection(std::int64_t rows, std::int64_t columns, const at::Generator& generator) {
  const double deviation = std::sqrt(2.0) / std::sqrt(static_cast<double>(columns));
  const double bound = std::sqrt(3.0) * deviation;
  return at::empty({rows, columns}, at::kFloat).uniform_(-bound, bound, generator);
}

}  // namespace

std::pair<at::Tensor, at::Tensor> vera_matrices(const VeraOptions& options) {
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  const at::Tensor a = projection(options.rank, options.widest_in, generator);
  return {a, projection(options.widest_out, options.rank, generator)};
}

Vera::Vera(const LayerShape& shape, const VeraOptions& options, SharedTensors& shared)
    : FactoredResidual(shape, options.rank) {
  // A file holds little more than the rank's number for matrices of its size.
  constexpr std::int64_t kMostRank = 1024;
  constexpr std::size_t kMostMatrices = 8;
  const std::int64_t most = std::max(kMostRank, std::min(options.widest_in, options.widest_out));
  if (options.rank > most)
    throw Error(ErrorCode::unsupported, "vera(rank=" + std::to_string(options.rank) + ")",
                "has more ranks than " + std::to_string(most), "use a smaller rank");
  const std::string key = "vera " + std::to_string(options.rank) + " " +
                          std::to_string(options.seed) + " " + std::to_string(options.widest_in) +
                          " " + std::to_string(options.widest_out);
  if (!shared.contains(key + " A") && shared.size() >= kMostMatrices)
    throw Error(ErrorCode::unsupported, "vera",
                "the layers need more than 4 different random matrices",
                "use one rank and one seed for all layers");
  if (!shared.contains(key + " A"))
    std::tie(shared[key + " A"], shared[key + " B"]) = vera_matrices(options);
  a_ = shared.at(key + " A").narrow(1, 0, shape.patch());
  b_matrix_ = shared.at(key + " B").narrow(0, 0, shape.out);
  b_ = at::zeros({shape.out}).set_requires_grad(true);
  d_ = at::full({options.rank}, options.start, at::kFloat).set_requires_grad(true);
}

FactoredResidual::Pair Vera::factors() const {
  const at::Tensor down = d_.unsqueeze(1) * a_.to(d_.scalar_type());
  const at::Tensor up = b_.unsqueeze(1) * b_matrix_.to(b_.scalar_type());
  return {down.reshape(shape_.with_rows(down.size(0))), up};
}

}  // namespace ringlet::adapt
