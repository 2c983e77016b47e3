// Data whose best denoiser is known in closed form, for laws over samplers and noise processes.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>

#include <ATen/ATen.h>

#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/sampler_table.h"
#include "tests/golden/formula.h"

namespace ringlet::diffusion {

inline const nn::Shape kLawShape = {2, 3, 4, 4};

/// In double, so that only a wrong coefficient can be behind a difference.
inline at::Tensor numbers(const std::string& name) {
  return golden::uniform(name, kLawShape).to(at::kDouble);
}
inline at::Tensor draw(std::int64_t index) { return 1.7 * numbers("draw" + std::to_string(index)); }

inline double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// Samples with the network of data that is the one point x0, from x0 noised to the path's start.
inline at::Tensor sample_point(const SamplerChoice& sampler, const SamplingSteps& path,
                               const at::Tensor& x0) {
  const NoiseProcess& process = *path.process;
  const Denoiser exact = [&](const at::Tensor& input, const NoiseLevel& level) {
    const at::Tensor x = input / process.input_scale(level);
    return training_target(process.prediction(), x0, (x - level.alpha * x0) / level.sigma, level);
  };
  const at::Tensor x = add_noise(x0, draw(99), path.steps[path.start].from);
  return sampler.entry->sample(exact, x, path, draw, {});
}

/// Largest error on data N(mean, deviation^2), whose probability flow is known: a point keeps its
/// quantile.
inline double probability_flow_error(const SamplerChoice& sampler, const SamplingSteps& path) {
  constexpr double kMean = 0.3, kDeviation = 0.5;
  const NoiseProcess& process = *path.process;
  const at::Tensor quantile = draw(0);
  const auto exact = [&](const NoiseLevel& level) {
    return level.alpha * kMean + std::hypot(level.alpha * kDeviation, level.sigma) * quantile;
  };
  const Denoiser best = [&](const at::Tensor& input, const NoiseLevel& level) {
    const at::Tensor x = input / process.input_scale(level);
    const double deviation = std::hypot(level.alpha * kDeviation, level.sigma);
    const at::Tensor unit = (x - level.alpha * kMean) / (deviation * deviation);
    const at::Tensor x0 = kMean + level.alpha * kDeviation * kDeviation * unit;
    return training_target(process.prediction(), x0, level.sigma * unit, level);
  };
  const at::Tensor end =
      sampler.entry->sample(best, exact(path.steps.front().from), path, draw, {});
  return difference(end, exact(path.steps.back().to));
}

/// Every row sampled alone equals itself in the batch, to 1e-12: the largest difference.
inline double row_dependence(const SamplerChoice& sampler, const SamplingSteps& path) {
  const Denoiser network = [](const at::Tensor& x, const NoiseLevel&) { return 0.4 * x.tanh(); };
  const auto sample = [&](const at::Tensor& start, const NoiseSource& noise) {
    return sampler.entry->sample(network, start, path, noise, {});
  };
  const at::Tensor both = sample(draw(99), draw);
  double largest = 0.0;
  for (const std::int64_t row : {0, 1}) {
    const auto one = [row](const at::Tensor& x) { return x.narrow(0, row, 1); };
    const at::Tensor alone =
        sample(one(draw(99)), [&](std::int64_t index) { return one(draw(index)); });
    largest = std::max(largest, difference(alone, one(both)));
  }
  return largest;
}

}  // namespace ringlet::diffusion
