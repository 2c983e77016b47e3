#include "ringlet/diffusion/prediction.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "ringlet/core/error.h"

namespace ringlet::diffusion {
namespace {

/// `Level` is a NoiseLevel or RowLevels.
template <class Level>
at::Tensor noisy_at(const at::Tensor& x0, const at::Tensor& noise, const Level& level) {
  return level.alpha * x0 + level.sigma * noise;
}

template <class Level>
at::Tensor target_at(Prediction prediction, const at::Tensor& x0, const at::Tensor& noise,
                     const Level& level) {
  switch (prediction) {
    case Prediction::epsilon:
      return noise;
    case Prediction::v:
      return level.alpha * noise - level.sigma * x0;
    case Prediction::sample:
      return x0;
    case Prediction::flow:
      return noise - x0;
  }
  throw Error(ErrorCode::internal, "prediction", "unknown kind");
}

}  // namespace

Estimate estimate(Prediction prediction, const at::Tensor& raw, const at::Tensor& x,
                  const NoiseLevel& level) {
  switch (prediction) {
    case Prediction::epsilon:
      if (level.alpha == 0.0)
        throw Error(ErrorCode::unsupported, "schedule",
                    "zero terminal SNR needs a model that predicts v or the sample",
                    "set rescale_betas_zero_snr to false for this epsilon model");
      return {(x - level.sigma * raw) / level.alpha, raw};
    case Prediction::v: {
      const double norm = level.alpha * level.alpha + level.sigma * level.sigma;
      const double alpha = level.alpha / norm, sigma = level.sigma / norm;
      return {alpha * x - sigma * raw, alpha * raw + sigma * x};
    }
    case Prediction::sample:
      return {raw, (x - level.alpha * raw) / level.sigma};
    case Prediction::flow: {
      const double norm = level.alpha + level.sigma;
      return {(x - level.sigma * raw) / norm, (x + level.alpha * raw) / norm};
    }
  }
  throw Error(ErrorCode::internal, "prediction", "unknown kind");
}

at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const NoiseLevel& level) {
  return noisy_at(x0, noise, level);
}

at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const RowLevels& levels) {
  return noisy_at(x0, noise, levels);
}

at::Tensor training_target(Prediction prediction, const at::Tensor& x0, const at::Tensor& noise,
                           const NoiseLevel& level) {
  return target_at(prediction, x0, noise, level);
}

at::Tensor training_target(Prediction prediction, const at::Tensor& x0, const at::Tensor& noise,
                           const RowLevels& levels) {
  return target_at(prediction, x0, noise, levels);
}

double min_snr_weight(Prediction prediction, const NoiseLevel& level, double gamma) {
  // Written without SNR itself, which is 0 or infinite at the ends.
  const double signal = level.alpha * level.alpha, noise = level.sigma * level.sigma;
  const double capped = std::min(signal, gamma * noise);  // min(SNR, gamma) * noise
  switch (prediction) {
    case Prediction::epsilon:
      return signal == 0.0 ? 1.0 : capped / signal;
    case Prediction::v:
      return capped / ((signal + noise) * (signal + noise));
    case Prediction::sample:
      return noise == 0.0 ? gamma : capped / noise;
    case Prediction::flow:
      return capped / ((level.alpha + level.sigma) * (level.alpha + level.sigma));
  }
  throw Error(ErrorCode::internal, "prediction", "unknown kind");
}

std::string_view prediction_name(Prediction prediction) {
  switch (prediction) {
    case Prediction::epsilon:
      return "epsilon";
    case Prediction::v:
      return "v_prediction";
    case Prediction::sample:
      return "sample";
    case Prediction::flow:
      return "flow_prediction";
  }
  throw Error(ErrorCode::internal, "prediction", "unknown kind");
}

std::optional<Prediction> find_prediction(std::string_view word) {
  // diffusers, ModelSpec and kohya, ComfyUI's enumeration, and what trainers write beside them.
  static constexpr std::array<std::pair<std::string_view, Prediction>, 17> kWords = {{
      {"epsilon", Prediction::epsilon},
      {"eps", Prediction::epsilon},
      {"noise", Prediction::epsilon},
      {"epsilonprediction", Prediction::epsilon},
      {"epsprediction", Prediction::epsilon},
      {"epspred", Prediction::epsilon},
      {"noiseprediction", Prediction::epsilon},
      {"v", Prediction::v},
      {"vprediction", Prediction::v},
      {"vpred", Prediction::v},
      {"vparameterization", Prediction::v},
      {"velocity", Prediction::v},
      {"velocityprediction", Prediction::v},
      {"sample", Prediction::sample},
      {"sampleprediction", Prediction::sample},
      {"x0", Prediction::sample},
      {"x0prediction", Prediction::sample},
  }};
  std::string plain;
  for (const char c : word)
    if (c != '_' && c != '-' && c != ' ')
      plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto found = std::ranges::find(kWords, plain, [](const auto& row) { return row.first; });
  return found == kWords.end() ? std::nullopt : std::optional(found->second);
}

Prediction prediction_from_name(const std::string& name, const std::string& where) {
  if (const auto known = find_prediction(name)) return *known;
  throw Error(ErrorCode::unsupported, where,
              "the model predicts \"" + name + "\" (prediction_type), which is not known",
              "ringlet supports epsilon, v_prediction and sample; `prediction` tells it which");
}

}  // namespace ringlet::diffusion
