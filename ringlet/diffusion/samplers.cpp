#include "ringlet/diffusion/samplers.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/clamp.h>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/noise_process.h"

namespace ringlet::diffusion {
namespace {

/// Runs `step(index, x)` over the path and reports.
template <class Step>
at::Tensor run(const SamplingSteps& path, at::Tensor x, const StepCallback& callback,
               const Step& step) {
  for (std::size_t i = path.start; i < path.steps.size(); ++i) {
    x = step(i, x);
    if (callback && !callback({i + 1, path.steps.size(), x}))
      throw Error(ErrorCode::cancelled, "sampling", "stopped after step " + std::to_string(i + 1));
  }
  return x;
}

at::Tensor clipped(const at::Tensor& x0, const SamplingSteps& path) {
  const double range = path.process->clip_range();
  return range > 0.0 ? at::clamp(x0, -range, range) : x0;
}

Estimate ask(const Denoiser& denoise, const at::Tensor& x, const NoiseLevel& level,
             const SamplingSteps& path) {
  return estimate(path.process->prediction(), raw_output(*path.process, denoise, x, level), x,
                  level);
}

/// The deterministic path to another level (DDIM with eta = 0, Song et al. 2021, eq. 12; an Euler
/// step of the probability flow in the noise-to-signal ratio is the same thing).
at::Tensor move(const Estimate& e, const NoiseLevel& to) {
  return to.alpha * e.x0 + to.sigma * e.epsilon;
}

/// A step whose noise is fresh but for `share` of the old one's deviation (DDIM's eq. 12 with any
/// variance).
at::Tensor move_with_fresh(const Estimate& e, const NoiseLevel& to, double share,
                           const NoiseSource& noise, std::size_t draw) {
  const double fresh = std::sqrt(std::max(0.0, 1.0 - share * share));
  const at::Tensor mean = to.alpha * e.x0 + (to.sigma * share) * e.epsilon;
  if (to.sigma * fresh == 0.0) return mean;
  return mean + (to.sigma * fresh) * noise(static_cast<std::int64_t>(draw));
}

/// Mean of the posterior q(x_to | x_from, x0), whose deviation is to.sigma * sqrt(1 - quotient^2).
/// For DDPM's process these are eqs. 6 and 7 of Ho et al. 2020; written in the quotient of
/// noise-to-signal ratios, they hold for every process, from pure noise too.
at::Tensor posterior_mean(const at::Tensor& x, const at::Tensor& x0, const NoiseLevel& from,
                          const NoiseLevel& to) {
  const double quotient = ratio_quotient(from, to);
  return (to.sigma / from.sigma * quotient) * x + (to.alpha * (1.0 - quotient * quotient)) * x0;
}

double posterior_deviation(const NoiseLevel& from, const NoiseLevel& to) {
  const double quotient = ratio_quotient(from, to);
  return to.sigma * std::sqrt(std::max(0.0, 1.0 - quotient * quotient));
}

}  // namespace

/// Ho et al. 2020, algorithm 2 with the "fixed small" variance.
at::Tensor sample_ddpm(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                       const NoiseSource& noise, const StepCallback& callback) {
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    const at::Tensor x0 = clipped(ask(denoise, x_t, from, path).x0, path);
    const at::Tensor mean = posterior_mean(x_t, x0, from, to);
    if (to.sigma == 0.0) return mean;
    return mean + posterior_deviation(from, to) * noise(static_cast<std::int64_t>(i));
  });
}

/// Song et al. 2021, "Denoising Diffusion Implicit Models", eqs. 12 and 16.
at::Tensor sample_ddim(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                       const NoiseSource& noise, const StepCallback& callback) {
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    Estimate e = ask(denoise, x_t, from, path);
    e.x0 = clipped(e.x0, path);
    if (path.eta == 0.0) return move(e, to);
    const double deviation = path.eta * posterior_deviation(from, to);
    const double direction = std::sqrt(std::max(0.0, to.sigma * to.sigma - deviation * deviation));
    return to.alpha * e.x0 + direction * e.epsilon +
           deviation * noise(static_cast<std::int64_t>(i));
  });
}

/// Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds", in the linear
/// multistep form (PLMS): Adams-Bashforth over the raw outputs, warmed up by one Heun step.
at::Tensor sample_pndm(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                       const NoiseSource&, const StepCallback& callback) {
  std::vector<at::Tensor> outputs;  // newest last, at most four
  at::Tensor before_first;
  const auto transfer = [&](const at::Tensor& raw, const at::Tensor& from_x,
                            const SamplingStep& step) {
    return move(estimate(path.process->prediction(), raw, from_x, step.from), step.to);
  };
  const auto remember = [&](at::Tensor raw) {
    if (outputs.size() == 4) outputs.erase(outputs.begin());
    outputs.push_back(std::move(raw));
  };
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const SamplingStep& step = path.steps[i];
    if (i == 1 && outputs.size() == 1) {  // the correction of the first step
      const at::Tensor mean =
          (raw_output(*path.process, denoise, x_t, step.to) + outputs.back()) / 2.0;
      return transfer(mean, before_first, step);
    }
    remember(raw_output(*path.process, denoise, x_t, step.from));
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
at::Tensor sample_euler(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                        const NoiseSource&, const StepCallback& callback) {
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    return move(ask(denoise, x_t, path.steps[i].from, path), path.steps[i].to);
  });
}

/// Karras et al. 2022, algorithm 2 in k-diffusion's form: down further than `to`, and up again.
at::Tensor sample_euler_ancestral(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                                  const NoiseSource& noise, const StepCallback& callback) {
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    return move_with_fresh(ask(denoise, x_t, from, path), to,
                           path.process->ancestral_share(from, to), noise, i);
  });
}

/// Karras et al. 2022, algorithm 1: Euler, then the trapezoid rule for dx = x0 d(alpha) + epsilon
/// d(sigma) in the coordinates x / scale of the process.
at::Tensor sample_heun(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                       const NoiseSource&, const StepCallback& callback) {
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    const Estimate first = ask(denoise, x_t, from, path);
    const at::Tensor guess = move(first, to);
    if (to.sigma == 0.0) return guess;
    const Estimate second = ask(denoise, guess, to, path);
    const double scale = path.process->integration_scale(from);
    const double to_scale = path.process->integration_scale(to);
    const double signal = to.alpha / to_scale - from.alpha / scale;
    const double noise = to.sigma / to_scale - from.sigma / scale;
    at::Tensor result = x_t / scale + noise * ((first.epsilon + second.epsilon) / 2.0);
    if (signal != 0.0) result = result + signal * ((first.x0 + second.x0) / 2.0);
    return to_scale * result;
  });
}

namespace {

/// Both DPM-Solver++ multistep samplers of second order (Lu et al. 2022, algorithm 2, and its SDE
/// form): x0 is extrapolated in the log-SNR lambda.
at::Tensor dpm_solver_multistep(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                                const NoiseSource* noise, const StepCallback& callback) {
  at::Tensor previous_x0;
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    const at::Tensor x0 = ask(denoise, x_t, from, path).x0;
    const bool last = i + 1 == path.steps.size();
    const bool lower_order = last && (to.sigma == 0.0 || path.steps.size() < 15);

    at::Tensor target = x0;
    if (previous_x0.defined() && !lower_order) {
      // From pure noise previous_h is infinite, and what was estimated there has no weight.
      const double h = to.log_snr() - from.log_snr();
      const double previous_h = from.log_snr() - path.steps[i - 1].from.log_snr();
      target = x0 + (0.5 * h / previous_h) * (x0 - previous_x0);
    }
    previous_x0 = x0;

    if (noise == nullptr)
      return (to.sigma / from.sigma) * x_t + (to.alpha * (1.0 - ratio_quotient(from, to))) * target;
    const at::Tensor mean = posterior_mean(x_t, target, from, to);
    if (to.sigma == 0.0) return mean;
    return mean + posterior_deviation(from, to) * (*noise)(static_cast<std::int64_t>(i));
  });
}

}  // namespace

at::Tensor sample_dpmpp_2m(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                           const NoiseSource&, const StepCallback& callback) {
  return dpm_solver_multistep(denoise, std::move(x), path, nullptr, callback);
}

at::Tensor sample_dpmpp_2m_sde(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                               const NoiseSource& noise, const StepCallback& callback) {
  return dpm_solver_multistep(denoise, std::move(x), path, &noise, callback);
}

/// DPM-Solver++ (SDE) with a midpoint: two network calls a step, as k-diffusion has it. The noise
/// of the half step is the first part of the Brownian path of the whole step.
at::Tensor sample_dpmpp_sde(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                            const NoiseSource& noise, const StepCallback& callback) {
  const auto advance = [](const at::Tensor& x_t, const NoiseLevel& from, const at::Tensor& x0,
                          const NoiseLevel& to, const at::Tensor& fresh) {
    return posterior_mean(x_t, x0, from, to) + posterior_deviation(from, to) * fresh;
  };
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    const Estimate e = ask(denoise, x_t, from, path);
    // A schedule that ends at the smallest training level may end with a step of no length.
    constexpr double kNoLength = 1e-9;
    if (to.sigma == 0.0 || ratio_quotient(from, to) * (1.0 + kNoLength) >= 1.0) return move(e, to);

    const at::Tensor first = noise(static_cast<std::int64_t>(2 * i));
    // Half the way in log-SNR from pure noise is pure noise still.
    if (from.alpha == 0.0) return advance(x_t, from, e.x0, to, first);
    const at::Tensor second = noise(static_cast<std::int64_t>(2 * i + 1));
    const NoiseLevel middle = path.process->level_at_ratio(std::sqrt(from.ratio() * to.ratio()));
    const double first_part = from.ratio() - middle.ratio();
    const double second_part = middle.ratio() - to.ratio();
    const at::Tensor whole = (std::sqrt(first_part) * first + std::sqrt(second_part) * second) /
                             std::sqrt(first_part + second_part);

    const at::Tensor half_way = advance(x_t, from, e.x0, middle, first);
    const at::Tensor x0 = ask(denoise, half_way, middle, path).x0;
    return advance(x_t, from, x0, to, whole);
  });
}

/// Song et al. 2023 and Luo et al. 2023, "Latent Consistency Models": jump to x0, add noise again.
at::Tensor sample_lcm(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                      const NoiseSource& noise, const StepCallback& callback) {
  constexpr double kSigmaData = 0.5;
  constexpr double kTimestepScaling = 10.0;
  return run(path, std::move(x), callback, [&](std::size_t i, const at::Tensor& x_t) {
    const auto& [from, to] = path.steps[i];
    const at::Tensor x0 = clipped(ask(denoise, x_t, from, path).x0, path);
    const double t = kTimestepScaling * from.timestep;
    const double norm = t * t + kSigmaData * kSigmaData;
    const at::Tensor denoised = (t / std::sqrt(norm)) * x0 + (kSigmaData * kSigmaData / norm) * x_t;
    if (i + 1 == path.steps.size()) return denoised;
    return add_noise(denoised, noise(static_cast<std::int64_t>(i)), to);
  });
}

}  // namespace ringlet::diffusion
