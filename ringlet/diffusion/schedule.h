// DDPM's process (Ho et al. 2020): integer training timesteps, whose noise follows from a schedule
// of betas.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/diffusion/sampling_steps.h"

namespace ringlet::diffusion {

struct ScheduleConfig {
  std::int64_t training_steps = 1000;
  double beta_start = 0.00085;
  double beta_end = 0.012;
  std::string beta_schedule = "scaled_linear";  ///< linear, scaled_linear or squaredcos_cap_v2
  std::vector<double> trained_betas;            ///< replaces the three fields above when not empty
  Prediction prediction = Prediction::epsilon;
  bool zero_terminal_snr = false;   ///< Lin et al. 2024, algorithm 1
  std::optional<Spacing> spacing;   ///< none: default_spacing
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

/// The spacing of a grid where neither the user nor the configuration names one: trailing under
/// zero terminal SNR, whose last level the others may leave out, else that of the diffusers class.
Spacing default_spacing(const ScheduleConfig& config, Grid grid);

/// Levels of the forward process at the training timesteps; variance preserving, so that alpha^2 +
/// sigma^2 = 1.
class Schedule final : public NoiseProcess {
 public:
  /// Throws Error(bad_format) or Error(unsupported) for a configuration that cannot be.
  explicit Schedule(const ScheduleConfig& config);

  const ScheduleConfig& config() const { return config_; }
  std::int64_t training_steps() const { return config_.training_steps; }

  /// alpha^2 / sigma^2 at the last training timestep.
  double terminal_snr() const;

  /// The level at an integer timestep in [0, training_steps); exact zero SNR included.
  NoiseLevel level(std::int64_t timestep) const;

  /// The level at a real timestep, its noise-to-signal ratio interpolated linearly, as diffusers'
  /// grids k and dpm have it. Under zero terminal SNR the last one has the ratio 4096: see ratios.
  NoiseLevel level_at_timestep(double timestep) const;

  /// A noise-to-signal ratio per training timestep, ascending: those that the grids k and dpm
  /// visit. Under zero terminal SNR diffusers puts the last of these levels at alpha^2 = 2^-24
  /// instead of 0, from where its k samplers start; so it is the reference's level, and this is
  /// the one place that says it.
  const std::vector<double>& ratios() const { return tables_->ratios; }

  std::string_view name() const override { return "DDPM"; }
  Prediction prediction() const override { return config_.prediction; }
  NoiseLevel level_at(double time) const override;

  /// Its timestep by interpolation of log ratio.
  NoiseLevel level_at_ratio(double ratio) const override;

  /// Training timesteps with equal probability (Ho et al. 2020), or the timestep below a drawn
  /// time, of which there are as many as timesteps.
  NoiseLevel draw_level(RandomStream& random, PictureSize size) const override;

  /// Densities and a range. Throws Error(invalid_argument) for weights by sigma and shifts, which
  /// are rectified flow's.
  std::shared_ptr<const NoiseProcess> with_times(const TrainingTimes& times) const override;

  /// Timesteps by the rules of the diffusers class that the grid is known by. Karras sigmas apply
  /// to the grids k and dpm. Throws Error(invalid_argument) when the schedule has fewer timesteps
  /// than asked for, or for a spacing of the grid lcm, which has its own.
  StepLayout lay_out(const StepRequest& request) const override;

  /// Alpha: k-diffusion and DPM-Solver integrate over the noise-to-signal ratio.
  double integration_scale(const NoiseLevel& level) const override { return level.alpha; }
  double clip_range() const override { return config_.clip_range; }
  bool has_whole_timesteps() const override { return true; }
  SamplerDefault default_sampler() const override;
  Json description(Grid grid) const override;
  std::vector<std::string> warnings() const override;

 private:
  struct Tables {
    std::vector<double> alphas_cumprod;  // alpha^2
    std::vector<double> ratios;
  };
  ScheduleConfig config_;
  std::shared_ptr<const Tables> tables_;
  std::optional<TimeDensity> times_;  ///< none = equal probability
};

/// The variance-preserving level of a ratio (infinity included), with the timestep that the network
/// is told.
NoiseLevel level_from_ratio(double ratio, double timestep);

}  // namespace ringlet::diffusion
