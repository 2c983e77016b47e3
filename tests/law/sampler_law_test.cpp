// Laws over the whole table of samplers on DDPM's process; noise_process_law_test.cpp has the
// others.
#include <algorithm>

#include <gtest/gtest.h>

#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/schedule.h"
#include "tests/law/sampler_laws.h"

namespace ringlet::diffusion {
namespace {

std::shared_ptr<const NoiseProcess> process_of(const ScheduleConfig& config) {
  return std::make_shared<Schedule>(config);
}

struct Case {
  SamplerChoice sampler;
  Prediction prediction;
};

class SamplerLaw : public testing::TestWithParam<Case> {
 protected:
  ScheduleConfig config() const {
    ScheduleConfig config;
    config.prediction = GetParam().prediction;
    return config;
  }
  static at::Tensor run(const SamplingSteps& path, const at::Tensor& x0) {
    return sample_point(GetParam().sampler, path, x0);
  }
  /// PLMS adds raw outputs of different levels: those of a v model differ even for a point, and its
  /// warm-up takes for granted that "leading" timesteps lie one stride apart.
  bool is_inexact_by_design(Spacing spacing) const {
    return GetParam().sampler.entry->grid == Grid::pndm &&
           (GetParam().prediction == Prediction::v ||
            (GetParam().prediction == Prediction::epsilon && spacing != Spacing::leading));
  }
  /// LCM keeps a trace of x, and DDPM a deviation of at least 1e-10, both by definition.
  double tolerance() const { return GetParam().sampler.entry->grid == Grid::lcm ? 1e-4 : 1e-9; }
};

// The last step of every sampler, random ones included, goes to clean latents.
TEST_P(SamplerLaw, APointIsFound) {
  const at::Tensor x0 = numbers("x0");
  int checked = 0;
  for (const auto spacing : {Spacing::leading, Spacing::trailing, Spacing::linspace})
    for (const std::int64_t steps : {1, 2, 3, 4, 7, 16, 30})
      for (const std::int64_t start : {std::int64_t{0}, steps / 2}) {
        if (is_inexact_by_design(spacing)) continue;
        ScheduleConfig scheduled = config();
        scheduled.spacing = spacing;
        SamplingSteps path = GetParam().sampler.steps(process_of(scheduled), steps);
        path.start = static_cast<std::size_t>(start);
        // DDIM and PLMS stop at the lowest level when the strides do not divide the timesteps.
        if (path.steps.back().to.sigma > 0.0) continue;
        EXPECT_LE(difference(run(path, x0), x0), tolerance()) << steps << " from " << start;
        ++checked;
      }
  EXPECT_TRUE(checked >= 40 || is_inexact_by_design(Spacing::trailing));
}

// v and x0 models stay defined where there is no signal at all.
TEST_P(SamplerLaw, APointIsFoundFromPureNoise) {
  if (GetParam().prediction == Prediction::epsilon) return;  // which says nothing there
  const at::Tensor x0 = numbers("x0");
  if (is_inexact_by_design(Spacing::trailing)) return;
  for (const std::int64_t steps : {1, 2, 5, 20}) {
    ScheduleConfig scheduled = config();
    scheduled.zero_terminal_snr = true;
    scheduled.spacing = Spacing::trailing;
    const SamplingSteps path = GetParam().sampler.steps(process_of(scheduled), steps);
    EXPECT_LE(difference(run(path, x0), x0), tolerance()) << steps;
  }
}

// Some models say that sampling ends at the smallest training level instead of clean latents: the
// last step can then have no length, where dividing by it would give NaN.
TEST_P(SamplerLaw, EndingAboveZeroNoiseStaysFinite) {
  const at::Tensor x0 = numbers("x0");
  for (const std::int64_t steps : {1, 2, 5, 20}) {
    ScheduleConfig scheduled = config();
    scheduled.final_sigma_is_min = true;
    scheduled.set_alpha_to_one = false;
    const SamplingSteps path = GetParam().sampler.steps(process_of(scheduled), steps);
    const at::Tensor result = run(path, x0);
    ASSERT_TRUE(result.isfinite().all().item<bool>()) << steps;
    const NoiseLevel& last = path.steps.back().to;
    if (is_inexact_by_design(Spacing::leading)) continue;
    EXPECT_LE(difference(result, last.alpha * x0), 4.0 * last.sigma + 1e-4) << steps;
  }
}

// Shape and values of one row never reach another.
TEST_P(SamplerLaw, RowsAreIndependent) {
  const SamplingSteps path = GetParam().sampler.steps(process_of(config()), 6);
  EXPECT_LE(row_dependence(GetParam().sampler, path), 1e-12);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const SamplerEntry& entry : sampler_table())
    for (const Prediction prediction : {Prediction::epsilon, Prediction::v, Prediction::sample})
      for (const bool karras : {false, true})
        if (!karras || entry.takes_karras()) cases.push_back({{&entry, karras}, prediction});
  return cases;
}

std::string case_name(const testing::TestParamInfo<Case>& entry) {
  const Prediction prediction = entry.param.prediction;
  std::string name = entry.param.sampler.name();
  name += prediction == Prediction::epsilon ? "_epsilon"
          : prediction == Prediction::v     ? "_v"
                                            : "_x0";
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, SamplerLaw, testing::ValuesIn(all_cases()), case_name);

double flow_error(const char* name, std::int64_t steps) {
  ScheduleConfig config;
  config.final_sigma_is_min = true;  // the jump to clean latents does not shrink with the steps
  config.set_alpha_to_one = false;
  const auto choice = find_sampler(name);
  return probability_flow_error(choice, choice.steps(process_of(config), steps));
}

// Twice the steps halve the error of a first-order sampler and quarter that of a second-order one:
// a wrong weight in a multistep formula costs the order long before it shows in a picture.
TEST(SamplerOrder, FirstOrder) {
  for (const char* name : {"ddim", "euler"}) {
    const double coarse = flow_error(name, 100), fine = flow_error(name, 200);
    EXPECT_GT(coarse / fine, 1.7) << name << " " << coarse << " " << fine;
    EXPECT_LT(fine, 0.05) << name;
  }
}

TEST(SamplerOrder, SecondOrder) {
  for (const char* name : {"heun-karras", "dpmpp-2m-karras", "unipc-karras"}) {
    const double coarse = flow_error(name, 40), fine = flow_error(name, 80);
    EXPECT_GT(coarse / fine, 3.0) << name << " " << coarse << " " << fine;
    EXPECT_LT(fine, 0.005) << name;
  }
}

}  // namespace
}  // namespace ringlet::diffusion
