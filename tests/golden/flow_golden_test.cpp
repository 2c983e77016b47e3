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
    const auto path = default_sampler(*process).steps(process, table.at("steps"), size);
    const auto want = table.at("sigmas").get<std::vector<double>>();
    ASSERT_EQ(path.steps.size() + 1, want.size()) << table.dump();
    // UniPC's own first sigma is 1 - 1e-6, since its arithmetic has no limit at 1.
    const double tolerance = name == "unipc" ? 2.0 * kSigmaTolerance : kSigmaTolerance;
    for (std::size_t i = 0; i < path.steps.size(); ++i) {
      const NoiseLevel& level = path.steps[i].from;
      ASSERT_NEAR(level.sigma, want[i], tolerance) << table.dump() << i;
      EXPECT_EQ(level.alpha, 1.0 - level.sigma);
      EXPECT_EQ(level.timestep, 1000.0 * level.sigma);
    }
    EXPECT_EQ(path.steps.back().to.sigma, 0.0);
    EXPECT_EQ(path.initial_sigma, path.steps.front().from.sigma);
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

TEST_F(FlowGolden, TrajectoriesEqualDiffusers) {
  for (const Json& test_case : configs_.at("cases")) {
    const std::string key = test_case.at("key");
    const auto sampler = find_sampler(test_case.at("sampler").get<std::string>());
    const auto path = path_through(test_case.at("sigmas").get<std::vector<double>>());
    const at::Tensor x = 1.7 * golden::uniform("start", kShape).to(at::kDouble);
    std::vector<at::Tensor> states;
    sampler.entry->sample(network, x, path, draw, [&](const SamplerStep& report) {
      states.push_back(report.latents);
      return true;
    });
    expect_near(key, at::stack(states));
  }
}

}  // namespace
}  // namespace ringlet::diffusion
