// The optimisers of the table against their reference implementations (make_optimizers.py).
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/train/dynamic_map.h"
#include "ringlet/train/optimizers.h"
#include "tests/golden/formula.h"

namespace ringlet::train {
namespace {

const Json& golden_optimizers() {
  static const Json json =
      read_json_file(std::string(RINGLET_SOURCE_DIR) + "/tests/golden/data/optimizers.json");
  return json;
}

/// The rate of a step by the name of its rule.
double rate_at(const std::string& rule, int step) {
  if (rule == "one") return 1.0;
  return (rule == "ten" ? 0.1 : 0.01) * (1 + step % 3);
}

OptimizerNumbers numbers_of(const Json& expected) {
  OptimizerNumbers numbers;
  if (!expected.at("betas").is_null())
    numbers.betas = expected.at("betas").get<std::pair<double, double>>();
  numbers.weight_decay = expected.at("weight_decay").get<double>();
  numbers.options = {expected.at("options").get<std::string>()};
  return numbers;
}

/// Whether 100 steps of this case end where the reference's do.
void expect_the_references_end(const Json& expected, double tolerance) {
  const at::ScalarType type = expected.at("type") == "fp64" ? at::kDouble : at::kFloat;
  const auto numbers = [&](const std::string& name, const nn::Shape& shape) {
    return golden::uniform(name, shape).to(type);
  };
  std::vector<Trainable> parameters;
  for (const auto& [name, sizes] : expected.at("shapes").items()) {
    const auto shape = sizes.get<nn::Shape>();
    parameters.push_back({name, numbers(name, shape).set_requires_grad(true)});
    if (expected.at("start").get<bool>()) parameters.back().start = numbers(name + ".start", shape);
  }
  const auto optimizer =
      optimizer_from_name(expected.at("optimizer").get<std::string>(), numbers_of(expected))
          .make(parameters);
  const int steps = golden_optimizers().at("steps");
  for (int step = 0; step < steps; ++step) {
    for (const Trainable& one : parameters)
      one.value.mutable_grad() =
          numbers(one.name + ".gradient." + std::to_string(step), one.value.sizes().vec());
    optimizer->step(rate_at(expected.at("rate"), step));
  }
  std::vector<at::Tensor> shown = optimizer->shown_values();
  if (shown.empty())
    for (const Trainable& one : parameters) shown.push_back(one.value.detach());
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const std::string& name = parameters[k].name;
    const auto values = expected.at("values").at(name).get<std::vector<double>>();
    const at::Tensor flat = shown[k].flatten().to(at::kDouble);
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(flat[static_cast<std::int64_t>(i)].item<double>(), values[i],
                  tolerance * std::max(1.0, std::abs(values[i])))
          << name << " " << i;
    const double sum = expected.at("sums").at(name);
    EXPECT_NEAR(flat.abs().sum().item<double>(), sum, tolerance * sum) << name;
  }
}

class Optimizers : public testing::TestWithParam<std::string> {};

TEST_P(Optimizers, AHundredStepsAreTheReferences) {
  int cases = 0;
  for (const Json& expected : golden_optimizers().at("cases")) {
    if (expected.at("optimizer") != GetParam()) continue;
    SCOPED_TRACE(expected.at("options").get<std::string>() + " case " + std::to_string(++cases));
    expect_the_references_end(expected, expected.at("type") == "fp64" ? 1e-10 : 1e-6);
  }
  EXPECT_GT(cases, 0);  // no row of the table is without its numbers
}

INSTANTIATE_TEST_SUITE_P(Names, Optimizers, testing::ValuesIn(optimizer_names()),
                         [](const auto& entry) {
                           std::string name = entry.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(DynamicMap, IsThatOfBitsandbytes) {
  const Json& expected = golden_optimizers().at("quantised");
  const auto floats = [](const at::Tensor& tensor) {
    return std::vector<float>(tensor.const_data_ptr<float>(),
                              tensor.const_data_ptr<float>() + tensor.numel());
  };
  const auto expect_floats = [&](const at::Tensor& actual, const Json& numbers) {
    const auto reference = numbers.get<std::vector<float>>();
    const std::vector<float> own = floats(actual);
    ASSERT_EQ(own.size(), reference.size());
    for (std::size_t i = 0; i < own.size(); ++i) EXPECT_FLOAT_EQ(own[i], reference[i]) << i;
  };
  expect_floats(dynamic_map(true), expected.at("signed"));
  expect_floats(dynamic_map(false), expected.at("unsigned"));
  const at::Tensor numbers = golden::uniform("numbers", {600}).pow(3);
  const BlockCodes codes = block_codes(600, at::kCPU);
  EXPECT_TRUE(at::equal(decode(codes, dynamic_map(true)), at::zeros({600})));
  encode(codes, numbers, dynamic_map(true));
  expect_floats(codes.scales, expected.at("scales"));
  const auto reference = expected.at("codes").get<std::vector<int>>();
  const at::Tensor own = codes.codes.to(at::kInt);
  for (std::size_t i = 0; i < reference.size(); ++i)
    EXPECT_EQ(own[static_cast<std::int64_t>(i)].item<int>(), reference[i]) << i;
  // Seven bits of fraction at the top, so that large numbers are a hundredth away at most.
  EXPECT_LT((decode(codes, dynamic_map(true)) - numbers).abs().max().item<double>(), 0.01);
}

}  // namespace
}  // namespace ringlet::train
