#include "ringlet/diffusion/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/scheduler_fields.h"

namespace ringlet::diffusion {
namespace {

/// alpha^2 of the last level of Schedule::ratios under zero terminal SNR: the smallest fp16 number,
/// as diffusers has it.
constexpr double kTinyAlphaSquared = 1.0 / 16777216.0;

/// Betas whose cumulative product is the squared cosine of Nichol and Dhariwal 2021.
at::Tensor cosine_betas(std::int64_t steps) {
  const auto alpha_bar = [](double t) {
    return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2);
  };
  std::vector<double> betas;
  for (std::int64_t i = 0; i < steps; ++i) {
    const double n = static_cast<double>(steps);
    const double here = alpha_bar(static_cast<double>(i) / n);
    const double next = alpha_bar(static_cast<double>(i + 1) / n);
    betas.push_back(std::min(1.0 - next / here, 0.999));
  }
  return at::tensor(betas, at::kDouble).to(at::kFloat);
}

at::Tensor make_betas(const ScheduleConfig& c) {
  if (!c.trained_betas.empty()) return at::tensor(c.trained_betas, at::kDouble).to(at::kFloat);
  if (c.beta_schedule == "squaredcos_cap_v2") return cosine_betas(c.training_steps);
  if (c.beta_schedule == "linear")
    return at::linspace(c.beta_start, c.beta_end, c.training_steps, at::kFloat);
  return at::linspace(std::sqrt(c.beta_start), std::sqrt(c.beta_end), c.training_steps, at::kFloat)
      .square();
}

/// Shifts and scales sqrt(alpha^2) so that the last step has no signal (Lin et al., algorithm 1).
at::Tensor rescale_to_zero_terminal_snr(const at::Tensor& betas) {
  at::Tensor root = at::cumprod(1.0 - betas, 0).sqrt();
  const at::Tensor first = root[0].clone();
  const at::Tensor last = root[-1].clone();
  root = (root - last) * (first / (first - last));
  const at::Tensor alpha_bar = root.square();
  const at::Tensor alphas = alpha_bar.slice(0, 1) / alpha_bar.slice(0, 0, -1);
  return 1.0 - at::cat({alpha_bar.slice(0, 0, 1), alphas});
}

void refuse_foreign_features(const Json& json, const std::string& where) {
  refuse_unless(json, "thresholding", false, where);
  refuse_unless(json, "use_exponential_sigmas", false, where);
  refuse_unless(json, "use_beta_sigmas", false, where);
  refuse_unless(json, "use_flow_sigmas", false, where);
  refuse_unless(json, "use_lu_lambdas", false, where);
  refuse_unless(json, "interpolation_type", "linear", where);
  refuse_unless(json, "timestep_type", "discrete", where);
  refuse_unless(json, "sigma_min", nullptr, where);
  refuse_unless(json, "sigma_max", nullptr, where);
  refuse_other_solvers(json, where);
}

/// Schedulers of other processes (EDM, flow matching, consistency models) write no betas: the
/// defaults would stand for another model's noise.
void refuse_other_processes(const Json& json, const std::string& where) {
  static constexpr std::array kOfBetas = {"",
                                          "DDIMScheduler",
                                          "DDPMScheduler",
                                          "DPMSolverMultistepScheduler",
                                          "EulerAncestralDiscreteScheduler",
                                          "EulerDiscreteScheduler",
                                          "HeunDiscreteScheduler",
                                          "LCMScheduler",
                                          "PNDMScheduler",
                                          "UniPCMultistepScheduler"};
  for (const char* field : {"beta_start", "beta_end", "beta_schedule", "trained_betas"})
    if (json.contains(field)) return;
  const auto name = json_value<std::string>(json, "_class_name", "", where);
  if (std::ranges::find(kOfBetas, name) != kOfBetas.end()) return;
  throw Error(ErrorCode::unsupported, where,
              "the model's scheduler is " + name + ", which has no betas",
              "its noise levels (EDM, consistency models, …) are unsupported");
}

void check(const ScheduleConfig& c, const std::string& where) {
  const auto bad = [&](const std::string& what) {
    throw Error(ErrorCode::bad_format, where, what);
  };
  if (c.training_steps < 2 || c.training_steps > 1000000)
    bad("\"num_train_timesteps\" must lie between 2 and 1000000");
  if (!c.trained_betas.empty() &&
      static_cast<std::int64_t>(c.trained_betas.size()) != c.training_steps)
    bad("\"trained_betas\" must have one entry per training timestep");
  const bool betas_fine =
      std::ranges::all_of(c.trained_betas, [](double beta) { return beta > 0.0 && beta < 1.0; });
  if (!betas_fine || !(c.beta_start > 0.0) || !(c.beta_end < 1.0) || c.beta_start > c.beta_end)
    bad("betas must lie between 0 and 1, and \"beta_start\" below \"beta_end\"");
  if (c.beta_schedule != "linear" && c.beta_schedule != "scaled_linear" &&
      c.beta_schedule != "squaredcos_cap_v2")
    throw Error(ErrorCode::unsupported, where,
                "beta_schedule \"" + c.beta_schedule + "\" is not known",
                "use linear, scaled_linear or squaredcos_cap_v2");
  if (c.steps_offset < 0 || c.steps_offset >= c.training_steps)
    bad("\"steps_offset\" must lie in the training timesteps");
  if (c.original_inference_steps < 1 || c.original_inference_steps > c.training_steps)
    bad("\"original_inference_steps\" must lie between 1 and \"num_train_timesteps\"");
}

}  // namespace

ScheduleConfig ScheduleConfig::from_json(const Json& json, const std::string& where) {
  refuse_other_processes(json, where);
  refuse_foreign_features(json, where);
  ScheduleConfig c;
  c.scheduler_class = json_value(json, "_class_name", c.scheduler_class, where);
  c.training_steps = json_value(json, "num_train_timesteps", c.training_steps, where);
  c.beta_start = json_value(json, "beta_start", 0.0001, where);
  c.beta_end = json_value(json, "beta_end", 0.02, where);
  c.beta_schedule = json_value<std::string>(json, "beta_schedule", "linear", where);
  c.trained_betas = json_value(json, "trained_betas", c.trained_betas, where);
  c.prediction = prediction_from_name(
      json_value<std::string>(json, "prediction_type", "epsilon", where), where);
  c.zero_terminal_snr = json_value(json, "rescale_betas_zero_snr", false, where);
  const auto spacing = json_value<std::string>(json, "timestep_spacing", "", where);
  if (!spacing.empty()) c.spacing = spacing_from_name(spacing, where);
  c.steps_offset = json_value(json, "steps_offset", c.steps_offset, where);
  // PNDM's default differs from DDIM's.
  c.set_alpha_to_one =
      json_value(json, "set_alpha_to_one", c.scheduler_class != "PNDMScheduler", where);
  c.final_sigma_is_min =
      json_value<std::string>(json, "final_sigmas_type", "zero", where) == "sigma_min";
  c.karras_sigmas = json_value(json, "use_karras_sigmas", false, where);
  if (json_value(json, "clip_sample", false, where))
    c.clip_range = json_value(json, "clip_sample_range", 1.0, where);
  c.original_inference_steps =
      json_value(json, "original_inference_steps", c.original_inference_steps, where);
  c.sde = is_sde_solver(json, where);
  check(c, where);
  return c;
}

Schedule::Schedule(const ScheduleConfig& config) : config_(config) {
  check(config, "schedule");
  // In fp32 like the peers, so that the levels are theirs to the last bit.
  at::Tensor betas = make_betas(config);
  if (config.zero_terminal_snr) betas = rescale_to_zero_terminal_snr(betas);
  const at::Tensor cumprod = at::cumprod(1.0 - betas, 0).to(at::kDouble);
  auto tables = std::make_shared<Tables>();
  const double* values = cumprod.const_data_ptr<double>();
  tables->alphas_cumprod.assign(values, values + cumprod.numel());
  for (const double alpha_squared : tables->alphas_cumprod) {
    const double finite = alpha_squared > 0.0 ? alpha_squared : kTinyAlphaSquared;
    tables->ratios.push_back(std::sqrt((1.0 - finite) / finite));
  }
  tables_ = std::move(tables);
}

double Schedule::terminal_snr() const {
  const double alpha_squared = tables_->alphas_cumprod.back();
  return alpha_squared / (1.0 - alpha_squared);
}

NoiseLevel Schedule::level(std::int64_t timestep) const {
  const double alpha_squared = tables_->alphas_cumprod.at(static_cast<std::size_t>(timestep));
  return {std::sqrt(alpha_squared), std::sqrt(1.0 - alpha_squared), static_cast<double>(timestep)};
}

NoiseLevel level_from_ratio(double ratio, double timestep) {
  if (std::isinf(ratio)) return {0.0, 1.0, timestep};
  const double alpha = 1.0 / std::sqrt(ratio * ratio + 1.0);
  return {alpha, ratio * alpha, timestep};
}

NoiseLevel Schedule::level_at_timestep(double timestep) const {
  const std::vector<double>& ratios = tables_->ratios;
  const double clamped = std::clamp(timestep, 0.0, static_cast<double>(ratios.size() - 1));
  const auto low = static_cast<std::size_t>(clamped);
  const std::size_t high = std::min(low + 1, ratios.size() - 1);
  const double weight = clamped - static_cast<double>(low);
  return level_from_ratio(ratios[low] + weight * (ratios[high] - ratios[low]), timestep);
}

NoiseLevel Schedule::level_at(double time) const {
  return level(static_cast<std::int64_t>(std::clamp(time, 0.0, 1.0) *
                                         static_cast<double>(training_steps() - 1)));
}

NoiseLevel Schedule::level_at_ratio(double ratio) const {
  const std::vector<double>& ratios = tables_->ratios;
  const auto above = std::ranges::upper_bound(ratios, ratio);
  const auto index = static_cast<std::size_t>(above - ratios.begin());
  const std::size_t low = std::min(index == 0 ? 0 : index - 1, ratios.size() - 2);
  const double log_low = std::log(ratios[low]);
  const double log_high = std::log(ratios[low + 1]);
  const double log_ratio = std::log(std::max(ratio, 1e-10));
  const double weight = std::clamp((log_ratio - log_low) / (log_high - log_low), 0.0, 1.0);
  return level_from_ratio(ratio, static_cast<double>(low) + weight);
}

std::shared_ptr<const NoiseProcess> Schedule::with_times(const TrainingTimes& times) const {
  if (times.weighting || times.shift)
    throw Error(ErrorCode::invalid_argument, Field(times.shift ? "flow_shift" : "sigma_weighting"),
                "it is for models of rectified flow, and this one is of DDPM", "leave it out");
  auto other = std::make_shared<Schedule>(*this);
  other->times_ = with_choices({.distribution = TimeDistribution::uniform}, times);
  return other;
}

NoiseLevel Schedule::draw_level(RandomStream& random, PictureSize) const {
  if (times_) {
    const auto count = static_cast<double>(training_steps());
    const auto timestep = static_cast<std::int64_t>(draw_time(random, *times_) * count);
    return level(std::clamp<std::int64_t>(timestep, 0, training_steps() - 1));
  }
  return level(
      static_cast<std::int64_t>(random.uniform_int(static_cast<std::uint64_t>(training_steps()))));
}

SamplerDefault Schedule::default_sampler() const {
  return {config_.sde ? "dpmpp-2m-sde" : config_.scheduler_class, config_.karras_sigmas};
}

Json Schedule::description(Grid grid) const {
  const Spacing spacing = config_.spacing.value_or(default_spacing(config_, grid));
  return {{"training_steps", config_.training_steps},
          {"beta_schedule",
           config_.trained_betas.empty() ? config_.beta_schedule : std::string("trained_betas")},
          {"beta_start", config_.beta_start},
          {"beta_end", config_.beta_end},
          {"zero_terminal_snr", config_.zero_terminal_snr},
          {"terminal_snr", terminal_snr()},
          {"spacing", spacing_name(spacing)}};
}

std::vector<std::string> Schedule::warnings() const {
  if (!config_.zero_terminal_snr) return {};
  if (config_.prediction == Prediction::epsilon)
    return {
        "the model's files say epsilon and zero terminal SNR, where epsilon carries no "
        "information; set `prediction` if they are wrong"};
  if (config_.spacing == Spacing::leading)
    return {
        "the schedule ends in zero SNR, but the spacing \"leading\" skips its last level; "
        "`spacing=trailing` starts there"};
  return {};
}

}  // namespace ringlet::diffusion
