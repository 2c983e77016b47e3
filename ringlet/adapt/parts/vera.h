// The residual of VeRA (Kopiczko et al. 2024, "VeRA: Vector-based Random Matrix Adaptation").
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

struct VeraOptions {
  std::int64_t rank = 256;
  std::uint64_t seed = 0;
  double start = 0.1;           ///< of d
  std::int64_t widest_out = 0;  ///< of the layers that share the matrices
  std::int64_t widest_in = 0;
};

/// A [rank, widest in] and B [widest out, rank], drawn as PEFT draws them: by torch's CPU
/// generator, A first, uniform with the Kaiming bound for a gain of sqrt(2).
std::pair<at::Tensor, at::Tensor> vera_matrices(const VeraOptions& options);

/// D = diag(b) B diag(d) A, b [out] at zero and d [rank] trainable; A [rank, in] and B [out, rank]
/// are corners of the random matrices for the widest layers, which a file need not hold.
class Vera final : public FactoredResidual {
 public:
  Vera(const LayerShape& shape, const VeraOptions& options, SharedTensors& shared);

  Parameters parameters() const override { return {{"b", b_}, {"d", d_}}; }
  std::vector<at::Tensor> frozen() const override { return {a_, b_matrix_}; }

 protected:
  Pair factors() const override;

 private:
  at::Tensor a_, b_matrix_;
  at::Tensor b_, d_;
};

}  // namespace ringlet::adapt
