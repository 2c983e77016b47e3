// The optimisers of the table against torch.optim and the papers' algorithms (make_optimizers.py).
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/train/optimizers.h"
#include "tests/golden/formula.h"

namespace ringlet::train {
namespace {

const Json& golden_optimizers() {
  static const Json json =
      read_json_file(std::string(RINGLET_SOURCE_DIR) + "/tests/golden/data/optimizers.json");
  return json;
}

const std::map<std::string, nn::Shape> kOptimizerShapes = {{"w", {3, 5}}, {"v", {7}}};

at::Tensor wide_uniform(const std::string& name, const nn::Shape& shape) {
  return golden::uniform(name, shape).to(at::kDouble);
}

class Optimizers : public testing::TestWithParam<std::size_t> {};

TEST_P(Optimizers, AHundredStepsAreTheReferences) {
  const Json& expected = golden_optimizers().at("cases").at(GetParam());
  std::vector<Trainable> parameters;
  for (const auto& [name, shape] : kOptimizerShapes) {
    parameters.push_back({name, wide_uniform(name, shape).set_requires_grad(true)});
    if (expected.at("start").get<bool>())
      parameters.back().start = wide_uniform(name + ".start", shape);
  }
  const OptimizerNumbers numbers{expected.at("betas").get<std::pair<double, double>>(),
                                 expected.at("weight_decay").get<double>()};
  const auto optimizer =
      optimizer_from_name(expected.at("optimizer").get<std::string>(), numbers).make(parameters);
  const int steps = golden_optimizers().at("steps");
  for (int step = 0; step < steps; ++step) {
    for (const auto& [name, value, start, factor] : parameters)
      value.mutable_grad() =
          wide_uniform(name + ".gradient." + std::to_string(step), kOptimizerShapes.at(name));
    optimizer->step(0.01 * (1 + step % 3));
  }
  for (const Trainable& parameter : parameters) {
    const auto values = expected.at("values").at(parameter.name).get<std::vector<double>>();
    const at::Tensor flat = parameter.value.detach().flatten();
    ASSERT_EQ(static_cast<std::size_t>(flat.numel()), values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(flat[static_cast<std::int64_t>(i)].item<double>(), values[i], 1e-12)
          << parameter.name << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Optimizers, testing::Range<std::size_t>(0, 5),
                         [](const auto& entry) {
                           const Json& one = golden_optimizers().at("cases").at(entry.param);
                           return one.at("optimizer").template get<std::string>() +
                                  std::to_string(entry.param);
                         });

// No row of the table is without its numbers.
TEST(OptimizerTable, IsCoveredByTheCases) {
  EXPECT_EQ(golden_optimizers().at("cases").size(), 5u);
  for (const std::string& name : optimizer_names())
    EXPECT_TRUE(std::ranges::any_of(golden_optimizers().at("cases"), [&](const Json& one) {
      return one.at("optimizer") == name;
    })) << name;
}

}  // namespace
}  // namespace ringlet::train
