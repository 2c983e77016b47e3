// The low-rank residual of LoRA (Hu et al. 2022); for convolutions that of LoCon.
#pragma once

#include <cstdint>

#include "ringlet/adapt/part.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {

/// D = (alpha / rank) * up * down, down [rank, in(, kh, kw)] uniform in +-1/sqrt(fan-in) (the
/// Kaiming start of PEFT and kohya), up [out, rank] zero.
class LowRank final : public FactoredResidual {
 public:
  LowRank(const LayerShape& shape, std::int64_t rank, double alpha, RandomStream random);

  Parameters parameters() const override { return {{"down", down_}, {"up", up_}}; }

 protected:
  Pair factors() const override { return {down_, up_, scale_}; }

 private:
  at::Tensor down_, up_;
  double scale_;
};

}  // namespace ringlet::adapt
