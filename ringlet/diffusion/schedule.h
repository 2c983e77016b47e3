// The noise schedule of a diffusion model: a value made from scheduler_config.json.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/prediction.h"

namespace ringlet::diffusion {

/// Which training timesteps a sampler visits (Lin et al. 2024, "Common Diffusion Noise Schedules
/// and Sample Steps are Flawed", table 2).
enum class Spacing { leading, trailing, linspace };

/// "leading", "trailing" or "linspace", as in scheduler_config.json, and back. Throws
/// Error(unsupported) that names `where`.
Spacing spacing_from_name(const std::string& name, const std::string& where);
std::string_view spacing_name(Spacing spacing);

struct ScheduleConfig {
  std::int64_t training_steps = 1000;
  double beta_start = 0.00085;
  double beta_end = 0.012;
  std::string beta_schedule = "scaled_linear";  ///< linear, scaled_linear or squaredcos_cap_v2
  std::vector<double> trained_betas;            ///< replaces the three fields above when not empty
  Prediction prediction = Prediction::epsilon;
  bool zero_terminal_snr = false;   ///< Lin et al. 2024, algorithm 1
  std::optional<Spacing> spacing;   ///< none: default_spacing of plan.h
  std::int64_t steps_offset = 0;    ///< added to "leading" timesteps
  bool set_alpha_to_one = true;     ///< DDIM, PNDM: the level after the last step is clean
  bool final_sigma_is_min = false;  ///< sigma samplers end at the smallest training level
  bool karras_sigmas = false;
  double clip_range = 0.0;  ///< DDPM, DDIM, LCM: x0 is clamped to +-this; 0 = not
  std::int64_t original_inference_steps = 50;  ///< LCM: steps of the distilled grid
  std::string scheduler_class;                 ///< "_class_name"; the model's own sampler
  bool sde = false;  ///< DPMSolverMultistep with algorithm_type sde-dpmsolver++

  /// Reads a scheduler_config.json. Throws Error(bad_format), and Error(unsupported) that names a
  /// field which would change the result in a way ringlet does not implement.
  static ScheduleConfig from_json(const Json& json, const std::string& where);
};

/// Levels of the forward process at the training timesteps.
class Schedule {
 public:
  explicit Schedule(const ScheduleConfig& config);

  const ScheduleConfig& config() const { return config_; }
  std::int64_t training_steps() const { return config_.training_steps; }
  Prediction prediction() const { return config_.prediction; }

  /// alpha^2 / sigma^2 at the last training timestep.
  double terminal_snr() const;

  /// The level at an integer timestep in [0, training_steps); exact zero SNR included.
  NoiseLevel level(std::int64_t timestep) const;

  /// The level at a real timestep, its noise-to-signal ratio interpolated linearly. Under zero
  /// terminal SNR the last ratio is 4096 (alpha^2 = 2^-24), so that it stays a number.
  NoiseLevel level_at_timestep(double timestep) const;

  /// The level of a noise-to-signal ratio; its timestep by interpolation of log ratio.
  NoiseLevel level_at_ratio(double ratio) const;

  /// A finite noise-to-signal ratio per training timestep, ascending.
  const std::vector<double>& ratios() const { return tables_->ratios; }

 private:
  struct Tables {
    std::vector<double> alphas_cumprod;  // alpha^2
    std::vector<double> ratios;
  };
  ScheduleConfig config_;
  std::shared_ptr<const Tables> tables_;
};

/// A level from a ratio and the timestep that the network is told.
NoiseLevel level_from_ratio(double ratio, double timestep);

}  // namespace ringlet::diffusion
