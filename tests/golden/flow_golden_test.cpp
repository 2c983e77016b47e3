// Rectified flow against diffusers: what its schedulers lay out, and whole trajectories
// (make_flow.py).
#include <memory>
#include <vector>

#include <ATen/ops/sin.h>
#include <ATen/ops/tanh.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/rectified_flow.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/time_density.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"

namespace ringlet::diffusion {
namespace {

constexpr double kSigmaTolerance = 1e-6;       // absolute: diffusers keeps sigmas in fp32
constexpr double kTrajectoryTolerance = 1e-6;  // relative

const nn::Shape kShape = {2, 2, 3, 4};

class FlowGolden : public testing::Test, protected golden::Expected {
 protected:
  FlowGolden() : Expected("flow", kTrajectoryTolerance) {}
};

TEST_F(FlowGolden, SigmasEqualDiffusers) {
  for (const Json& table : configs_.at("tables")) {
    const std::string name = table.at("config");
    const auto process = open_noise_process(configs_.at("configs").at(name), name);
    EXPECT_EQ(process->name(), "rectified flow");
    PictureSize size;
    if (!table.at("size").is_null()) size = {table.at("size")[0], table.at("size")[1]};
    SamplerChoice sampler = default_sampler(*process);
    if (!table.at("spacing").is_null())
      sampler.spacing = spacing_from_name(table.at("spacing"), "spacing");
    const auto path = sampler.steps(process, table.at("steps"), size);
    const auto want = table.at("sigmas").get<std::vector<double>>();
    ASSERT_EQ(path.steps.size() + 1, want.size()) << table.dump();
    const auto timesteps = table.at("timesteps").get<std::vector<double>>();
    for (std::size_t i = 0; i < path.steps.size(); ++i) {
      const NoiseLevel& level = path.steps[i].from;
      ASSERT_NEAR(level.sigma, want[i], kSigmaTolerance) << table.dump() << i;
      EXPECT_EQ(level.alpha, 1.0 - level.sigma);
      ASSERT_NEAR(level.timestep, timesteps[i], 1000.0 * kSigmaTolerance) << table.dump() << i;
    }
    EXPECT_EQ(path.steps.back().to.sigma, 0.0);
    EXPECT_EQ(path.initial_sigma, 1.0);
  }
}

at::Tensor network(const at::Tensor& x, const NoiseLevel& level) {
  const double t = level.timestep;
  return 0.3 * at::tanh(1.7 * x + 0.001 * t) + 0.1 * at::sin(2.0 * x.flip(-1) + 0.01 * t);
}

at::Tensor draw(std::int64_t index) {
  return 1.7 * golden::uniform("noise" + std::to_string(index), kShape).to(at::kDouble);
}

/// A path through given sigmas, the last of which is 0.
SamplingSteps path_through(const std::vector<double>& sigmas) {
  std::vector<NoiseLevel> levels;
  for (const double sigma : sigmas) levels.push_back({1.0 - sigma, sigma, 1000.0 * sigma});
  const NoiseLevel end = levels.back();
  levels.pop_back();
  SamplingSteps path;
  path.steps = chain(levels, end);
  path.process = std::make_shared<RectifiedFlow>(RectifiedFlowConfig());
  return path;
}

/// The latents after every step.
at::Tensor walked(const SamplerChoice& sampler, const SamplingSteps& path) {
  const at::Tensor x = 1.7 * golden::uniform("start", kShape).to(at::kDouble);
  std::vector<at::Tensor> states;
  sampler.entry->sample(network, x, path, draw, [&](const SamplerStep& report) {
    states.push_back(report.latents);
    return true;
  });
  return at::stack(states);
}

TEST_F(FlowGolden, TrajectoriesEqualDiffusers) {
  for (const Json& test_case : configs_.at("cases")) {
    const auto sampler = find_sampler(test_case.at("sampler").get<std::string>());
    const auto path = path_through(test_case.at("sigmas").get<std::vector<double>>());
    expect_near(test_case.at("key"), walked(sampler, path));
  }
}

TEST_F(FlowGolden, TrajectoriesOnTheOwnGridsEqualDiffusers) {
  constexpr double kOwnGridTolerance = 1e-5;  // diffusers has log-SNR of fp32 sigmas near 1
  for (const Json& test_case : configs_.at("own")) {
    const std::string name = test_case.at("config");
    const auto process = open_noise_process(configs_.at("configs").at(name), name);
    SamplerChoice sampler = default_sampler(*process);
    EXPECT_EQ(sampler.name(), test_case.at("sampler").get<std::string>());
    if (!test_case.at("spacing").is_null())
      sampler.spacing = spacing_from_name(test_case.at("spacing"), "spacing");
    PictureSize size;
    if (!test_case.at("size").is_null()) size = {test_case.at("size")[0], test_case.at("size")[1]};
    expect_near(test_case.at("key"),
                walked(sampler, sampler.steps(process, test_case.at("steps"), size)),
                kOwnGridTolerance);
  }
}

TEST_F(FlowGolden, TrainingTimesAndWeightsEqualDiffusers) {
  constexpr double kFp32 = 2e-7;
  for (const Json& entry : configs_.at("times")) {
    const std::string name = entry.at("name");
    const Json& options = entry.at("options");
    for (std::size_t i = 0; i < entry.at("random").size(); ++i) {
      const double random = entry.at("random")[i];
      const double time = name == "mode" ? mode_time(random, options.at("scale"))
                          : name == "uniform"
                              ? random
                              : logit_normal_time(random, options.at("mean"), options.at("std"));
      EXPECT_NEAR(time, entry.at("times")[i].get<double>(), kFp32) << entry.dump() << i;
    }
  }
  for (const Json& entry : configs_.at("weights"))
    for (const auto& [name, weighting] : kSigmaWeightingNames)
      for (std::size_t i = 0; name == entry.at("name") && i < entry.at("sigmas").size(); ++i) {
        const double want = entry.at("weights")[i];
        EXPECT_NEAR(sigma_weight(weighting, entry.at("sigmas")[i]), want, kFp32 * want);
      }
}

}  // namespace
}  // namespace ringlet::diffusion
