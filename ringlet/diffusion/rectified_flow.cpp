#include "ringlet/diffusion/rectified_flow.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/scheduler_fields.h"

namespace ringlet::diffusion {
namespace {

double shifted(double sigma, double shift) { return shift * sigma / (1.0 + (shift - 1.0) * sigma); }

/// `count` numbers from `first` to `last`, both included.
std::vector<double> linspace(double first, double last, std::int64_t count) {
  std::vector<double> values;
  const double step = count > 1 ? (last - first) / static_cast<double>(count - 1) : 0.0;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(first + static_cast<double>(i) * step);
  return values;
}

/// Stretches 1 - sigma so that the last sigma is `last` (LTX-Video).
void stretch_to(std::vector<double>& sigmas, double last) {
  const double factor = (1.0 - sigmas.back()) / (1.0 - last);
  if (factor == 0.0) return;  // the one step from pure noise
  for (double& sigma : sigmas) sigma = 1.0 - (1.0 - sigma) / factor;
}

/// As DPMSolverMultistepScheduler and UniPCMultistepScheduler keep it: sigma in fp32 and below 1,
/// where their arithmetic has no limit, and a whole timestep.
NoiseLevel solver_level(double sigma, std::int64_t training_steps) {
  constexpr double kBelowOne = 1e-6;
  if (std::abs(sigma - 1.0) < kBelowOne) sigma -= kBelowOne;
  const double kept = static_cast<float>(sigma);
  return {1.0 - kept, kept, std::floor(sigma * static_cast<double>(training_steps))};
}

void check(const RectifiedFlowConfig& c, const std::string& where) {
  const auto bad = [&](const std::string& what) {
    throw Error(ErrorCode::bad_format, where, what);
  };
  if (c.training_steps < 2 || c.training_steps > 1000000)
    bad("\"num_train_timesteps\" must lie between 2 and 1000000");
  if (!(c.shift > 0.0) || !std::isfinite(c.shift)) bad("\"shift\" must be above 0");
  if (!std::isfinite(c.base_shift) || !std::isfinite(c.max_shift))
    bad("\"base_shift\" and \"max_shift\" must be numbers");
  if (c.base_tokens < 1 || c.max_tokens <= c.base_tokens)
    bad("\"max_image_seq_len\" must be above \"base_image_seq_len\"");
  if (c.last_sigma && !(*c.last_sigma > 0.0 && *c.last_sigma < 1.0))
    bad("\"shift_terminal\" must lie between 0 and 1");
  if (c.pixels_per_token < 1 || !(c.times.deviation > 0.0))
    bad("the token's side and the deviation of the times must be above 0");
}

bool is_solver(const std::string& name) {
  return name == "DPMSolverMultistepScheduler" || name == "UniPCMultistepScheduler";
}

void read_shift(RectifiedFlowConfig& c, const Json& json, const std::string& where, bool solver) {
  c.shift = json_value(json, solver ? "flow_shift" : "shift", c.shift, where);
  c.dynamic_shift = json_value(json, "use_dynamic_shifting", false, where);
  c.base_shift = json_value(json, "base_shift", c.base_shift, where);
  c.max_shift = json_value(json, "max_shift", c.max_shift, where);
  c.base_tokens = json_value(json, "base_image_seq_len", c.base_tokens, where);
  c.max_tokens = json_value(json, "max_image_seq_len", c.max_tokens, where);
  const auto kind = json_value<std::string>(json, "time_shift_type", "exponential", where);
  c.linear_shift = kind == "linear";
  if (!c.linear_shift) refuse_unless(json, "time_shift_type", "exponential", where);
  const auto last = json.find("shift_terminal");
  if (last != json.end() && !last->is_null() && *last != 0.0)
    c.last_sigma = json_value(json, "shift_terminal", 0.0, where);
}

}  // namespace

bool RectifiedFlowConfig::describes(const Json& json, const std::string& where) {
  const auto name = json_value<std::string>(json, "_class_name", "", where);
  return name == "FlowMatchEulerDiscreteScheduler" || name == "FlowMatchHeunDiscreteScheduler" ||
         (is_solver(name) && json_value(json, "use_flow_sigmas", false, where));
}

RectifiedFlowConfig RectifiedFlowConfig::from_json(const Json& json, const std::string& where) {
  const auto name = json_value<std::string>(json, "_class_name", "", where);
  for (const char* field : {"invert_sigmas", "stochastic_sampling", "use_beta_sigmas",
                            "thresholding", "use_lu_lambdas"})
    refuse_unless(json, field, false, where);
  refuse_unless(json, "final_sigmas_type", "zero", where);
  refuse_other_solvers(json, where);
  if (is_solver(name) || json.contains("prediction_type"))
    refuse_unless(json, "prediction_type", "flow_prediction", where);
  RectifiedFlowConfig c;
  c.training_steps = json_value(json, "num_train_timesteps", c.training_steps, where);
  read_shift(c, json, where, is_solver(name));
  c.karras_sigmas = json_value(json, "use_karras_sigmas", false, where);
  c.exponential_sigmas = json_value(json, "use_exponential_sigmas", false, where);
  if (name == "FlowMatchHeunDiscreteScheduler") c.sampler = "heun";
  if (name == "UniPCMultistepScheduler") c.sampler = "unipc";
  if (name == "DPMSolverMultistepScheduler")
    c.sampler = is_sde_solver(json, where) ? "dpmpp-2m-sde" : "dpmpp-2m";
  check(c, where);
  return c;
}

RectifiedFlow::RectifiedFlow(const RectifiedFlowConfig& config) : config_(config) {
  check(config_, "schedule");
}

NoiseLevel RectifiedFlow::level_of(double sigma) const {
  return {1.0 - sigma, sigma, sigma * static_cast<double>(config_.training_steps)};
}

double RectifiedFlow::shift(PictureSize size) const {
  if (!config_.dynamic_shift) return config_.shift;
  const double tokens = static_cast<double>((size.width / config_.pixels_per_token) *
                                            (size.height / config_.pixels_per_token));
  if (tokens < 1.0)
    throw Error(ErrorCode::invalid_argument, Field("size"),
                "the noise levels of this model depend on the picture's size",
                "give width and height, at least " + std::to_string(config_.pixels_per_token) +
                    " pixels each");
  const double slope = (config_.max_shift - config_.base_shift) /
                       static_cast<double>(config_.max_tokens - config_.base_tokens);
  const double mu =
      config_.base_shift + slope * (tokens - static_cast<double>(config_.base_tokens));
  return config_.linear_shift ? mu : std::exp(mu);
}

NoiseLevel RectifiedFlow::level_at(double time) const {
  return level_of(std::clamp(time, 0.0, 1.0));
}

NoiseLevel RectifiedFlow::level_at_ratio(double ratio) const {
  return level_of(std::isinf(ratio) ? 1.0 : ratio / (1.0 + ratio));
}

NoiseLevel RectifiedFlow::draw_level(RandomStream& random, PictureSize size) const {
  const double time = std::clamp(draw_time(random, config_.times), 0.0, 1.0);
  return level_of(shifted(time, shift(size)));
}

std::shared_ptr<const NoiseProcess> RectifiedFlow::with_times(const TrainingTimes& times) const {
  RectifiedFlowConfig c = config_;
  c.times = with_choices(c.times, times);
  c.weighting = times.weighting.value_or(c.weighting);
  if (times.shift) {
    c.dynamic_shift = false;
    c.shift = *times.shift;
  }
  return std::make_shared<RectifiedFlow>(c);
}

double RectifiedFlow::loss_weight(const NoiseLevel& level, double min_snr_gamma) const {
  const double lowest = 1.0 / static_cast<double>(config_.training_steps);
  return NoiseProcess::loss_weight(level, min_snr_gamma) *
         sigma_weight(config_.weighting, std::max(level.sigma, lowest));
}

Spacing RectifiedFlow::spacing(const std::optional<Spacing>& chosen, Grid grid) const {
  if (is_multistep(grid)) return chosen.value_or(Spacing::linspace);
  const Spacing own = config_.dynamic_shift ? Spacing::trailing : Spacing::linspace;
  return chosen.value_or(config_.spacing.value_or(own));
}

std::vector<double> RectifiedFlow::even_sigmas(const StepRequest& request) const {
  const std::int64_t steps = request.steps;
  const double lowest = 1.0 / static_cast<double>(config_.training_steps);
  if (spacing(request.spacing, request.grid) == Spacing::trailing)
    return linspace(1.0, 1.0 / static_cast<double>(steps), steps);
  if (is_multistep(request.grid)) {
    std::vector<double> sigmas = linspace(1.0, lowest, steps + 1);
    if (request.grid == Grid::dpm) {  // its class spaces alpha, from the other end
      for (double& sigma : sigmas) sigma = 1.0 - sigma;
      std::ranges::reverse(sigmas);
    }
    sigmas.pop_back();
    return sigmas;
  }
  // FlowMatchEulerDiscreteScheduler lays its steps between training levels that are shifted
  // already, and shifts them once more.
  return linspace(1.0, config_.dynamic_shift ? lowest : shifted(lowest, config_.shift), steps);
}

StepLayout RectifiedFlow::lay_out(const StepRequest& request) const {
  check_step_count(request.steps);
  const Spacing spaced = spacing(request.spacing, request.grid);
  if (spaced == Spacing::leading)
    throw Error(ErrorCode::invalid_argument, Field("spacing"),
                "spacing \"leading\" skips the highest noise levels, where rectified flow begins",
                "use trailing or linspace");
  std::vector<double> sigmas = even_sigmas(request);
  const double shift_of_size = shift(request.size);
  for (double& sigma : sigmas) sigma = shifted(sigma, shift_of_size);
  if (config_.last_sigma) stretch_to(sigmas, *config_.last_sigma);
  if (request.karras)
    sigmas = karras_spaced(sigmas.front(), sigmas.back(), request.steps);
  else if (config_.exponential_sigmas) {
    sigmas = linspace(std::log(sigmas.front()), std::log(sigmas.back()), request.steps);
    for (double& sigma : sigmas) sigma = std::exp(sigma);
  }
  const bool as_solver = is_multistep(request.grid) && spaced == Spacing::linspace;
  std::vector<NoiseLevel> levels;
  for (const double sigma : sigmas)
    levels.push_back(as_solver ? solver_level(sigma, config_.training_steps) : level_of(sigma));
  return {chain(levels, level_of(0.0)), /*initial_sigma=*/1.0};
}

double RectifiedFlow::ancestral_share(const NoiseLevel& from, const NoiseLevel& to) const {
  const double down = to.sigma * to.sigma / from.sigma;
  return to.sigma == 0.0 ? 0.0 : (down / to.sigma) * (to.alpha / (1.0 - down));
}

SamplerDefault RectifiedFlow::default_sampler() const {
  return {config_.sampler, config_.karras_sigmas};
}

std::int64_t RectifiedFlow::steps_for_strength(std::int64_t steps, double strength) const {
  const auto all = static_cast<double>(steps);
  return steps - static_cast<std::int64_t>(all - all * strength);
}

Json RectifiedFlow::description(Grid grid) const {
  Json out = {{"process", name()}, {"training_steps", config_.training_steps}};
  if (config_.dynamic_shift)
    out["shift"] = "by the picture's size";
  else
    out["shift"] = config_.shift;
  out["spacing"] = spacing_name(spacing(std::nullopt, grid));
  return out;
}

}  // namespace ringlet::diffusion
