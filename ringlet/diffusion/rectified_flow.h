// Rectified flow (Liu et al. 2022; Esser et al. 2024, "Scaling Rectified Flow Transformers for
// High-Resolution Image Synthesis"): a straight line from data to noise.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/time_density.h"

namespace ringlet::diffusion {

struct RectifiedFlowConfig {
  std::int64_t training_steps = 1000;  ///< the network is told sigma * training_steps
  double shift = 1.0;  ///< s of s * t / (1 + (s - 1) * t); Esser et al. 2024, eq. 23

  /// The shift depends on the picture's size: its logarithm (or, where `linear_shift` is set, the
  /// shift itself) lies on the line through (base_tokens, base_shift) and (max_tokens, max_shift).
  bool dynamic_shift = false;
  bool linear_shift = false;
  double base_shift = 0.5;
  double max_shift = 1.15;
  std::int64_t base_tokens = 256;
  std::int64_t max_tokens = 4096;
  std::int64_t pixels_per_token = 16;  ///< along a side: the autoencoder's factor times the patch

  std::optional<double> last_sigma =
      std::nullopt;                 ///< sigmas are stretched to end here ("shift_terminal")
  bool exponential_sigmas = false;  ///< sigmas fall by equal factors
  bool karras_sigmas = false;       ///< of the model's own sampler
  std::string sampler = "euler";    ///< the model's own

  /// linspace: from 1 down to the lowest training level, as diffusers' schedulers do it alone;
  /// trailing: from 1 to 1 / steps, as its pipelines for FLUX and later models ask. None: trailing
  /// where the shift is dynamic. The solvers dpm and unipc lay out their own, whatever this is.
  std::optional<Spacing> spacing = std::nullopt;

  TimeDensity times;  ///< of training levels, before the shift
  SigmaWeighting weighting = SigmaWeighting::none;

  /// Whether a scheduler_config.json is one of flow matching.
  static bool describes(const Json& json, const std::string& where);

  /// Reads the configuration of FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler,
  /// and of DPMSolverMultistepScheduler and UniPCMultistepScheduler with "use_flow_sigmas". Throws
  /// Error(bad_format), and Error(unsupported) that names a field which would change the result in
  /// a way ringlet does not implement.
  static RectifiedFlowConfig from_json(const Json& json, const std::string& where);
};

/// alpha = 1 - sigma, and a network that says the velocity epsilon - x0. Time is sigma before the
/// shift.
class RectifiedFlow final : public NoiseProcess {
 public:
  /// Throws Error(bad_format) for a configuration that cannot be.
  explicit RectifiedFlow(const RectifiedFlowConfig& config);

  const RectifiedFlowConfig& config() const { return config_; }

  /// The shift for pictures of `size`, in pixels. Throws Error(invalid_argument) for an empty size
  /// where it depends on it.
  double shift(PictureSize size) const;

  std::string_view name() const override { return "rectified flow"; }
  Prediction prediction() const override { return Prediction::flow; }
  NoiseLevel level_at(double time) const override;
  NoiseLevel level_at_ratio(double ratio) const override;
  NoiseLevel draw_level(RandomStream& random, PictureSize size) const override;
  std::shared_ptr<const NoiseProcess> with_times(const TrainingTimes& times) const override;

  /// The process's own weight of errors, with min-SNR where it is asked for.
  double loss_weight(const NoiseLevel& level, double min_snr_gamma) const override;

  /// Samplers share these sigmas, but for the grids dpm and unipc. Where these are spaced by
  /// linspace, they have one interval more than steps and leave the last point out, as diffusers'
  /// classes do: dpm starts a training level below 1 and unipc 1e-6 below, and the network is told
  /// whole timesteps. Every path starts from noise of deviation 1. The spacing "leading" is
  /// refused.
  StepLayout lay_out(const StepRequest& request) const override;

  /// The step goes down to sigma = to^2 / from and up again, as the web UIs' "Euler a" does it for
  /// rectified flow; the noise-to-signal ratio, infinite at the start, has no part in it.
  double ancestral_share(const NoiseLevel& from, const NoiseLevel& to) const override;
  SamplerDefault default_sampler() const override;

  /// Rounded up, as diffusers' pipelines for Stable Diffusion 3 and FLUX do it.
  std::int64_t steps_for_strength(std::int64_t steps, double strength) const override;
  Json description(Grid grid) const override;

 private:
  NoiseLevel level_of(double sigma) const;
  Spacing spacing(const std::optional<Spacing>& chosen, Grid grid) const;
  std::vector<double> even_sigmas(const StepRequest& request) const;

  RectifiedFlowConfig config_;
};

}  // namespace ringlet::diffusion
