#include "ringlet/diffusion/samplers.h"

#include <cmath>
#include <utility>
#include <vector>

#include <ATen/ops/clamp.h>

#include "ringlet/core/error.h"

namespace ringlet::diffusion {
namespace {

/// Runs `step(index, x)` over the plan and reports.
template <class Step>
at::Tensor run(const SamplingPlan& plan, at::Tensor x, const StepCallback& callback,
               const Step& step) {
  for (std::size_t i = plan.start; i < plan.steps.size(); ++i) {
    x = step(i, x);
    if (callback && !callback({i + 1, plan.steps.size(), x}))
      throw Error(ErrorCode::cancelled, "sampling", "stopped after step " + std::to_string(i + 1));
  }
  return x;
}

at::Tensor clipped(const at::Tensor& x0, const SamplingPlan& plan) {
  const double range = plan.schedule.config().clip_range;
  return range > 0.0 ? at::clamp(x0, -range, range) : x0;
}

Estimate ask(const Denoiser& denoise, const at::Tensor& x, const NoiseLevel& level,
             const SamplingPlan& plan) {
  return estimate(plan.prediction(), denoise(x, level), x, level);
}

/// The deterministic path to another level (DDIM with eta = 0, Song et al. 2021, eq. 12; an Euler
/// step of the probability flow in the noise-to-signal ratio is the same thing).
at::Tensor move(const Estimate& e, const NoiseLevel& to) {
  return to.alpha * e.x0 + to.sigma * e.epsilon;
}

/// How an ancestral step to the ratio `to` splits into a deterministic part and fresh noise
/// (Karras et al. 2022, algorithm 2 in k-diffusion's form).
struct AncestralSplit {
  double down;
  double up;
};

AncestralSplit ancestral(double from, double to) {
  const double up = std::min(to, std::sqrt(to * to * (from * from - to * to) / (from * from)));
  return {std::sqrt(std::max(0.0, to * to - up * up)), up};
}

}  // namespace

/// Ho et al. 2020, eqs. 6 and 7 with the "fixed small" variance.
at::Tensor sample_ddpm(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                       const NoiseSource& noise, const StepCallback& callback) {
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    const at::Tensor x0 = clipped(ask(denoise, x_t, from, plan).x0, plan);
    const double alpha_step = from.alpha * from.alpha / (to.alpha * to.alpha);
    const double from_variance = from.sigma * from.sigma;
    const double to_variance = to.sigma * to.sigma;
    const at::Tensor mean = (to.alpha * (1.0 - alpha_step) / from_variance) * x0 +
                            (std::sqrt(alpha_step) * to_variance / from_variance) * x_t;
    if (from.timestep <= 0.0) return mean;
    const double variance = std::max(to_variance / from_variance * (1.0 - alpha_step), 1e-20);
    return mean + std::sqrt(variance) * noise(static_cast<std::int64_t>(i));
  });
}

/// Song et al. 2021, "Denoising Diffusion Implicit Models", eqs. 12 and 16.
at::Tensor sample_ddim(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                       const NoiseSource& noise, const StepCallback& callback) {
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    Estimate e = ask(denoise, x_t, from, plan);
    e.x0 = clipped(e.x0, plan);
    if (plan.eta == 0.0) return move(e, to);
    const double ratio = to.sigma / from.sigma;
    const double alpha_step = from.alpha * from.alpha / (to.alpha * to.alpha);
    const double deviation = plan.eta * ratio * std::sqrt(1.0 - alpha_step);
    const double direction = std::sqrt(std::max(0.0, to.sigma * to.sigma - deviation * deviation));
    return to.alpha * e.x0 + direction * e.epsilon +
           deviation * noise(static_cast<std::int64_t>(i));
  });
}

/// Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds", in the linear
/// multistep form (PLMS): Adams-Bashforth over the raw outputs, warmed up by one Heun step.
at::Tensor sample_pndm(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                       const NoiseSource&, const StepCallback& callback) {
  std::vector<at::Tensor> outputs;  // newest last, at most four
  at::Tensor before_first;
  const auto transfer = [&](const at::Tensor& raw, const at::Tensor& from_x,
                            const SamplingStep& step) {
    return move(estimate(plan.prediction(), raw, from_x, step.from), step.to);
  };
  const auto remember = [&](at::Tensor raw) {
    if (outputs.size() == 4) outputs.erase(outputs.begin());
    outputs.push_back(std::move(raw));
  };
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const SamplingStep& step = plan.steps[i];
    if (i == 1 && outputs.size() == 1) {  // the correction of the first step
      const at::Tensor mean = (denoise(x_t, step.to) + outputs.back()) / 2.0;
      return transfer(mean, before_first, step);
    }
    remember(denoise(x_t, step.from));
    const auto e = [&](std::size_t back) { return outputs[outputs.size() - 1 - back]; };
    switch (outputs.size()) {
      case 1:
        before_first = x_t;
        return transfer(e(0), x_t, step);
      case 2:
        return transfer((3.0 * e(0) - e(1)) / 2.0, x_t, step);
      case 3:
        return transfer((23.0 * e(0) - 16.0 * e(1) + 5.0 * e(2)) / 12.0, x_t, step);
      default:
        return transfer((55.0 * e(0) - 59.0 * e(1) + 37.0 * e(2) - 9.0 * e(3)) / 24.0, x_t, step);
    }
  });
}

/// Karras et al. 2022, algorithm 1 without the correction and without churn.
at::Tensor sample_euler(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                        const NoiseSource&, const StepCallback& callback) {
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    return move(ask(denoise, x_t, plan.steps[i].from, plan), plan.steps[i].to);
  });
}

at::Tensor sample_euler_ancestral(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                                  const NoiseSource& noise, const StepCallback& callback) {
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    const Estimate e = ask(denoise, x_t, from, plan);
    const AncestralSplit split = ancestral(from.ratio(), to.ratio());
    const at::Tensor mean = e.x0 + split.down * e.epsilon;
    if (split.up == 0.0) return to.alpha * mean;
    return to.alpha * (mean + split.up * noise(static_cast<std::int64_t>(i)));
  });
}

/// Karras et al. 2022, algorithm 1: Euler, then the trapezoid rule.
at::Tensor sample_heun(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                       const NoiseSource&, const StepCallback& callback) {
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    const Estimate first = ask(denoise, x_t, from, plan);
    const at::Tensor guess = move(first, to);
    if (to.sigma == 0.0) return guess;
    const Estimate second = ask(denoise, guess, to, plan);
    const at::Tensor slope = (first.epsilon + second.epsilon) / 2.0;
    return to.alpha * (x_t / from.alpha + (to.ratio() - from.ratio()) * slope);
  });
}

namespace {

/// Both DPM-Solver++ multistep samplers of second order (Lu et al. 2022, algorithm 2, and its SDE
/// form): x0 is extrapolated in the log-SNR lambda.
at::Tensor dpm_solver_multistep(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                                const NoiseSource* noise, const StepCallback& callback) {
  at::Tensor previous_x0;
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    const at::Tensor x0 = ask(denoise, x_t, from, plan).x0;
    const bool last = i + 1 == plan.steps.size();
    const bool lower_order = last && (to.sigma == 0.0 || plan.steps.size() < 15);

    at::Tensor target = x0;
    if (previous_x0.defined() && !lower_order) {
      const double h = std::log(from.ratio() / to.ratio());
      const double previous_h = std::log(plan.steps[i - 1].from.ratio() / from.ratio());
      target = x0 + (0.5 * h / previous_h) * (x0 - previous_x0);
    }
    previous_x0 = x0;

    const double decay = to.ratio() / from.ratio();  // e^-h
    if (noise == nullptr)
      return (to.sigma / from.sigma) * x_t + (to.alpha * (1.0 - decay)) * target;
    const double kept = decay * decay;
    const at::Tensor mean =
        (to.sigma / from.sigma * decay) * x_t + (to.alpha * (1.0 - kept)) * target;
    if (to.sigma == 0.0) return mean;
    return mean + (to.sigma * std::sqrt(std::max(0.0, 1.0 - kept))) *
                      (*noise)(static_cast<std::int64_t>(i));
  });
}

}  // namespace

at::Tensor sample_dpmpp_2m(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                           const NoiseSource&, const StepCallback& callback) {
  return dpm_solver_multistep(denoise, std::move(x), plan, nullptr, callback);
}

at::Tensor sample_dpmpp_2m_sde(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                               const NoiseSource& noise, const StepCallback& callback) {
  return dpm_solver_multistep(denoise, std::move(x), plan, &noise, callback);
}

/// DPM-Solver++ (SDE) with a midpoint: two network calls a step, as k-diffusion has it. The noise
/// of the half step is the first part of the Brownian path of the whole step.
at::Tensor sample_dpmpp_sde(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                            const NoiseSource& noise, const StepCallback& callback) {
  const auto advance = [](const at::Tensor& x_t, const NoiseLevel& from, const at::Tensor& x0,
                          double to_ratio, const at::Tensor& fresh) {
    const AncestralSplit split = ancestral(from.ratio(), to_ratio);
    const double kept = split.down / from.ratio();
    return kept * (x_t / from.alpha) + (1.0 - kept) * x0 + split.up * fresh;
  };
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    const Estimate e = ask(denoise, x_t, from, plan);
    // A schedule that ends at the smallest training level may end with a step of no length.
    constexpr double kNoLength = 1e-9;
    if (to.sigma == 0.0 || from.ratio() <= to.ratio() * (1.0 + kNoLength)) return move(e, to);

    const NoiseLevel middle = plan.schedule.level_at_ratio(std::sqrt(from.ratio() * to.ratio()));
    const at::Tensor first = noise(static_cast<std::int64_t>(2 * i));
    const at::Tensor second = noise(static_cast<std::int64_t>(2 * i + 1));
    const double first_part = from.ratio() - middle.ratio();
    const double second_part = middle.ratio() - to.ratio();
    const at::Tensor whole = (std::sqrt(first_part) * first + std::sqrt(second_part) * second) /
                             std::sqrt(first_part + second_part);

    const at::Tensor half_way = middle.alpha * advance(x_t, from, e.x0, middle.ratio(), first);
    const at::Tensor x0 = ask(denoise, half_way, middle, plan).x0;
    return to.alpha * advance(x_t, from, x0, to.ratio(), whole);
  });
}

/// Song et al. 2023 and Luo et al. 2023, "Latent Consistency Models": jump to x0, add noise again.
at::Tensor sample_lcm(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                      const NoiseSource& noise, const StepCallback& callback) {
  constexpr double kSigmaData = 0.5;
  constexpr double kTimestepScaling = 10.0;
  return run(plan, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = plan.steps[i];
    const at::Tensor x0 = clipped(ask(denoise, x_t, from, plan).x0, plan);
    const double t = kTimestepScaling * from.timestep;
    const double norm = t * t + kSigmaData * kSigmaData;
    const at::Tensor denoised = (t / std::sqrt(norm)) * x0 + (kSigmaData * kSigmaData / norm) * x_t;
    if (i + 1 == plan.steps.size()) return denoised;
    return add_noise(denoised, noise(static_cast<std::int64_t>(i)), to);
  });
}

}  // namespace ringlet::diffusion
