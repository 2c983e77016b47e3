// The residual of VeRA (Kopiczko et al. 2024, "VeRA: Vector-based Random Matrix Adaptation").
#pragma once

#include <map>
#include <string>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// Frozen random matrices that layers share, by what they are made from.
using SharedTensors = std::map<std::string, at::Tensor>;

struct VeraOptions {
  std::int64_t rank = 256;
  std::uint64_t seed = 0;
  double start = 0.1;           ///< of d
  std::int64_t widest_out = 0;  ///< of the layers that share the matrices
  std::int64_t widest_in = 0;
};

/// D = diag(b) B diag(d) A, b [out] at zero and d [rank] trainable; A [rank, in] and B [out, rank]
/// are the corners of random matrices for the widest layers, drawn as PEFT draws them (torch's CPU
/// generator, A first), so that its files need not hold them.
class Vera final : public FactoredResidual {
 public:
  Vera(const LayerShape& shape, const VeraOptions& options, SharedTensors& shared);

  Parameters parameters() const override { return {{"b", b_}, {"d", d_}}; }

 protected:
  Pair factors() const override;

 private:
  at::Tensor a_, b_matrix_;
  at::Tensor b_, d_;
};

}  // namespace ringlet::adapt
