#include "ringlet/diffusion/prediction.h"

#include "ringlet/core/error.h"

namespace ringlet::diffusion {

Estimate estimate(Prediction prediction, const at::Tensor& raw, const at::Tensor& x,
                  const NoiseLevel& level) {
  switch (prediction) {
    case Prediction::epsilon:
      if (level.alpha == 0.0)
        throw Error(ErrorCode::unsupported, "schedule",
                    "zero terminal SNR needs a model that predicts v or the sample",
                    "set rescale_betas_zero_snr to false for this epsilon model");
      return {(x - level.sigma * raw) / level.alpha, raw};
    case Prediction::v:
      return {level.alpha * x - level.sigma * raw, level.alpha * raw + level.sigma * x};
    case Prediction::sample:
      return {raw, (x - level.alpha * raw) / level.sigma};
  }
  throw Error(ErrorCode::internal, "prediction", "unknown kind");
}

at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const NoiseLevel& level) {
  return level.alpha * x0 + level.sigma * noise;
}

at::Tensor training_target(Prediction prediction, const at::Tensor& x0, const at::Tensor& noise,
                           const NoiseLevel& level) {
  switch (prediction) {
    case Prediction::epsilon:
      return noise;
    case Prediction::v:
      return level.alpha * noise - level.sigma * x0;
    case Prediction::sample:
      return x0;
  }
  throw Error(ErrorCode::internal, "prediction", "unknown kind");
}

Prediction prediction_from_name(const std::string& name, const std::string& where) {
  if (name == "epsilon") return Prediction::epsilon;
  if (name == "v_prediction") return Prediction::v;
  if (name == "sample") return Prediction::sample;
  throw Error(ErrorCode::unsupported, where, "prediction_type \"" + name + "\" is not known",
              "use epsilon, v_prediction or sample");
}

}  // namespace ringlet::diffusion
