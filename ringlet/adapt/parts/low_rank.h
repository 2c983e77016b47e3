// The low-rank residual of LoRA (Hu et al. 2022); for convolutions that of LoCon.
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// Where the factors start. D is zero in all cases.
enum class LowRankStart {
  kaiming,     ///< down uniform in +-1/sqrt(fan-in), up zero (PEFT, kohya)
  gaussian,    ///< down N(0, 1/rank^2), up zero (PEFT, diffusers)
  glora,       ///< up uniform in +-1/sqrt(rank), down zero (LyCORIS's GLoRA)
  orthogonal,  ///< both from orthogonal halves of the rank space, so that up down = 0 (PEFT)
  pissa,  ///< the largest singular directions of W0 (Meng et al. 2024); D is measured from there
  olora,  ///< the first columns of W0's QR decomposition (Büyükakyüz 2024); likewise
};

struct LowRankOptions {
  std::int64_t rank = 4;
  double scale = 1.0;  ///< alpha / rank, or alpha / sqrt(rank) (rsLoRA; Kalajdzievski 2023)
  LowRankStart start = LowRankStart::kaiming;
  bool tucker = false;  ///< down [rank, in] and mid [rank, rank, kh, kw] in place of down
  bool load = false;    ///< the numbers come from a file: no start is computed
};

/// D = scale * up * down, up [out, rank], down [rank, in(, kh, kw)]; with `tucker`
/// D = scale * up * mid * down (LyCORIS). Starts that are not zero subtract their own product:
///     D = scale * (up * down - up_0 * down_0)
class LowRank final : public FactoredResidual {
 public:
  /// `w0` is the frozen weight, for the starts that read it. Throws Error(unsupported) where a
  /// start does not exist.
  LowRank(const at::Tensor& w0, const LowRankOptions& options, RandomStream random);

  Parameters parameters() const override;
  Parameters starts() const override;
  Parameters constants() const override;
  std::vector<const Derived*> derived() const override;

 protected:
  Pair factors() const override;

 private:
  void start_from_weight(const at::Tensor& w0, LowRankStart start);
  void start_orthogonal(RandomStream& random);

  at::Tensor down_, up_;
  at::Tensor mid_;                    ///< undefined without tucker
  at::Tensor down_start_, up_start_;  ///< undefined where the start is zero
  double scale_;
  Derived whole_;  ///< down with its Tucker core, or both factors with their starts
};

}  // namespace ringlet::adapt
