// Every schedule and sampler against diffusers as full trajectories (make_schedules.py).
#include <cmath>

#include <ATen/ops/sin.h>
#include <ATen/ops/tanh.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/io/tensor_file.h"
#include "tests/golden/formula.h"

namespace ringlet {
namespace {

constexpr double kTrajectoryTolerance = 1e-5;  // relative, fp32

const nn::Shape kShape = {2, 2, 3, 4};
const std::string kScheduleData = std::string(RINGLET_SOURCE_DIR) + "/tests/golden/data/";

struct Golden {
  Json json = read_json_file(kScheduleData + "schedules.json");
  std::map<std::string, at::Tensor> tensors =
      io::load_tensors(kScheduleData + "schedules.safetensors");
};

const Golden& golden_schedules() {
  static const Golden data;
  return data;
}

at::Tensor network(const at::Tensor& x, const diffusion::NoiseLevel& level) {
  const double t = level.timestep;
  return 0.3 * at::tanh(1.7 * x + 0.001 * t) + 0.1 * at::sin(2.0 * x.flip(-1) + 0.01 * t);
}

at::Tensor draw(std::int64_t index) {
  return 1.7 * golden::uniform("noise" + std::to_string(index), kShape);
}

diffusion::Schedule schedule_of(const std::string& config) {
  return diffusion::Schedule(diffusion::ScheduleConfig::from_json(
      golden_schedules().json.at("configs").at(config), config));
}

TEST(SchedulesGolden, AlphasEqualDiffusers) {
  for (const auto& [config, json] : golden_schedules().json.at("configs").items()) {
    const diffusion::Schedule schedule = schedule_of(config);
    const at::Tensor want = golden_schedules().tensors.at(config + ".alphas_cumprod");
    for (std::int64_t t = 0; t < schedule.training_steps(); ++t) {
      const double alpha = schedule.level(t).alpha;
      // The rescaling to zero terminal SNR subtracts square roots whose last bit LibTorch leaves to
      // the processor, and multiplies a thousand quotients of them: diffusers' own numbers differ
      // by 3e-7 between machines. Elsewhere they are the same everywhere.
      if (schedule.config().zero_terminal_snr)
        ASSERT_NEAR(alpha, std::sqrt(want[t].item<double>()), 1e-6) << config << t;
      else
        ASSERT_FLOAT_EQ(static_cast<float>(alpha * alpha), want[t].item<float>()) << config << t;
    }
  }
}

TEST(SchedulesGolden, TrajectoriesEqualDiffusers) {
  for (const Json& test_case : golden_schedules().json.at("cases")) {
    const std::string key = test_case.at("key");
    std::string name = test_case.at("sampler");
    const bool random_ddim = name == "ddim-eta";
    const auto choice = diffusion::find_sampler(random_ddim ? "ddim" : name);
    const auto schedule =
        std::make_shared<diffusion::Schedule>(schedule_of(test_case.at("config")));
    diffusion::SamplingSteps path = choice.steps(schedule, test_case.at("steps"));
    path.start = test_case.at("start");
    if (random_ddim) path.eta = 0.7;

    const at::Tensor noise = 1.7 * golden::uniform("start", kShape);
    const at::Tensor x = path.start > 0 ? diffusion::add_noise(golden::uniform("picture", kShape),
                                                               noise, path.steps[path.start].from)
                                        : noise * path.initial_sigma;
    const at::Tensor& want = golden_schedules().tensors.at(key);
    std::int64_t row = 0;
    choice.entry->sample(network, x, path, draw, [&](const diffusion::SamplerStep& report) {
      const double difference = (report.latents - want[row]).abs().max().item<double>();
      EXPECT_LE(difference, kTrajectoryTolerance * want[row].abs().max().item<double>())
          << key << " step " << row;
      ++row;
      return true;
    });
    EXPECT_EQ(row, want.size(0)) << key;
  }
}

}  // namespace
}  // namespace ringlet
