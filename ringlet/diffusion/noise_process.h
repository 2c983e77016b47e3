// How a model's data become noise: the process that its network was trained to reverse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/random.h"
#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/diffusion/sampling_steps.h"
#include "ringlet/diffusion/time_density.h"

namespace ringlet::diffusion {

/// The sampler that a process names for itself; see diffusion::default_sampler.
struct SamplerDefault {
  std::string name;     ///< any spelling of sampler_table.h, or a diffusers class; "" = none
  bool karras = false;  ///< on Karras sigmas, where the sampler can
};

/// A forward process x = alpha * x0 + sigma * epsilon and what training and sampling need to know
/// of it. Immutable and free of state, so that threads may share one.
///
/// A new process implements name, prediction and level_at; the rest has definitions that hold for
/// every process, which it replaces where the published one differs.
class NoiseProcess {
 public:
  virtual ~NoiseProcess() = default;

  /// For messages: "DDPM", "rectified flow".
  virtual std::string_view name() const = 0;

  /// What the network predicts.
  virtual Prediction prediction() const = 0;

  /// The level at `time` in [0, 1], from the least noise that the network knows to the most, before
  /// any shift. A process of whole timesteps takes the one below.
  virtual NoiseLevel level_at(double time) const = 0;

  /// The level of a noise-to-signal ratio >= 0; infinity is pure noise. Beyond the ends of the
  /// process the network is told the timestep of the end. The definition here finds the time by
  /// bisection, since ratios rise with time, and gives the ends themselves beyond them.
  virtual NoiseLevel level_at_ratio(double ratio) const;

  /// The level of one row of training, for pictures of `size`. The definition here draws times
  /// uniformly.
  virtual NoiseLevel draw_level(RandomStream& random, PictureSize size) const;

  /// The process with other training times, for draw_level and loss_weight. The definition here
  /// throws Error(invalid_argument).
  virtual std::shared_ptr<const NoiseProcess> with_times(const TrainingTimes& times) const;

  /// Weight of a row's squared error: min-SNR of Hang et al. 2023 for gamma > 0, else 1.
  virtual double loss_weight(const NoiseLevel& level, double min_snr_gamma) const;

  /// The levels that a sampler visits, highest first. The definition here takes the times 1, 1 -
  /// 1/steps, …, 1/steps, or Karras sigmas between the ratios of those two ends, and ends in clean
  /// latents. Throws Error(invalid_argument) for a number of steps or a spacing that cannot be, and
  /// Error(unsupported) for Karras sigmas of a process that begins in pure noise.
  virtual StepLayout lay_out(const StepRequest& request) const;

  /// How many of `steps` image-to-image does for a strength in (0, 1]. The definition here is that
  /// of diffusers' pipelines for DDPM, which round down.
  virtual std::int64_t steps_for_strength(std::int64_t steps, double strength) const;

  /// What noisy latents are multiplied by before the network sees them (c_in of Karras et al.
  /// 2022).
  virtual double input_scale(const NoiseLevel&) const { return 1.0; }

  /// Higher-order rules of integration work on x / integration_scale: alpha for networks that are
  /// sampled in k-diffusion's coordinates, 1 for those sampled in their own.
  virtual double integration_scale(const NoiseLevel&) const { return 1.0; }

  /// Share of the old noise's deviation that is still there after an ancestral step, in [0, 1]; the
  /// rest of to.sigma is fresh. The definition here is that of the posterior q(x_to | x_from, x0).
  virtual double ancestral_share(const NoiseLevel& from, const NoiseLevel& to) const;

  /// Estimated clean latents are clamped to +- this; 0 = not.
  virtual double clip_range() const { return 0.0; }

  /// Whether levels exist at integer training timesteps only, one stride apart, which PLMS and
  /// LCM require.
  virtual bool has_whole_timesteps() const { return false; }

  virtual SamplerDefault default_sampler() const { return {}; }

  /// What `ringlet inspect` tells of it; `grid` is that of the model's own sampler.
  virtual Json description(Grid grid) const;

  /// What a user should know before pictures are made: sentences without the file's name.
  virtual std::vector<std::string> warnings() const { return {}; }
};

/// The network's prediction for latents x [B, C, h, w], given in the scale of the process.
at::Tensor raw_output(const NoiseProcess& process, const Denoiser& denoise, const at::Tensor& x,
                      const NoiseLevel& level);

/// The process that a scheduler_config.json describes, by its "_class_name": rectified flow for the
/// schedulers of flow matching, DDPM's for the others. Throws Error(bad_format), and
/// Error(unsupported) that names what ringlet does not implement.
std::shared_ptr<const NoiseProcess> open_noise_process(const Json& json, const std::string& where);

}  // namespace ringlet::diffusion
