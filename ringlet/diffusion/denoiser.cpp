#include "ringlet/diffusion/denoiser.h"

#include <cmath>
#include <limits>

namespace ringlet::diffusion {

double NoiseLevel::log_snr() const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (alpha == 0.0) return -kInfinity;
  return sigma == 0.0 ? kInfinity : std::log(alpha / sigma);
}

double ratio_quotient(const NoiseLevel& from, const NoiseLevel& to) {
  return to.sigma * from.alpha / (to.alpha * from.sigma);
}

}  // namespace ringlet::diffusion
