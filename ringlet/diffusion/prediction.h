// What a network predicts, and how it turns into the clean latents and the noise.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "ringlet/diffusion/denoiser.h"

namespace ringlet::diffusion {

enum class Prediction {
  epsilon,  ///< the noise (Ho et al. 2020)
  v,        ///< alpha * epsilon - sigma * x0 (Salimans and Ho 2022)
  sample,   ///< x0 itself
  flow,     ///< epsilon - x0, the velocity of rectified flow (Liu et al. 2022)
};

/// The levels of a batch's rows, each [B, 1, 1, 1] in fp32 on the rows' device.
struct RowLevels {
  at::Tensor alpha;
  at::Tensor sigma;
};

/// The two unknowns of x = alpha * x0 + sigma * epsilon.
struct Estimate {
  at::Tensor x0;
  at::Tensor epsilon;
};

/// Solves for x0 and epsilon from latents x and the network's raw output, both [B, C, h, w].
/// Throws Error(unsupported) for epsilon at alpha = 0, where x holds no signal.
Estimate estimate(Prediction prediction, const at::Tensor& raw, const at::Tensor& x,
                  const NoiseLevel& level);

/// The forward process: alpha * x0 + sigma * noise.
at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const NoiseLevel& level);
at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const RowLevels& levels);

/// What the network should predict for this x0 and noise: the training target.
at::Tensor training_target(Prediction prediction, const at::Tensor& x0, const at::Tensor& noise,
                           const NoiseLevel& level);
at::Tensor training_target(Prediction prediction, const at::Tensor& x0, const at::Tensor& noise,
                           const RowLevels& levels);

/// min(SNR, gamma) / SNR for a network that predicts epsilon, and for the others the weight that
/// makes their squared error the same loss of x0 (Hang et al. 2023, "Efficient Diffusion Training
/// via Min-SNR Weighting Strategy"). gamma > 0; finite at both ends of the process.
double min_snr_weight(Prediction prediction, const NoiseLevel& level, double gamma);

/// The word of scheduler_config.json: "epsilon", "v_prediction", "sample" or "flow_prediction".
std::string_view prediction_name(Prediction prediction);

/// What a word means that some program writes for a prediction ("v", "v-prediction", "velocity",
/// "eps", …) of a network for DDPM's process, whatever its case; none for a word that is not known.
/// Flow is none of them: it belongs to another process, which no word alone can choose.
std::optional<Prediction> find_prediction(std::string_view word);

/// As find_prediction. Throws Error(unsupported) for a word that is not known.
Prediction prediction_from_name(const std::string& name, const std::string& where);

}  // namespace ringlet::diffusion
