#include "ringlet/adapt/set/budget.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/log.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::adapt {
namespace {

/// A layer of zeros, which are stored once.
std::shared_ptr<nn::Layer> layer_of(const LayerShape& shape) {
  const at::Tensor weight = at::zeros({1}).expand(shape.sizes());
  if (shape.convolution)
    return std::make_shared<nn::Conv2dLayer>(weight, at::Tensor(),
                                             nn::Conv2dOptions{.stride = 1, .padding = 1});
  return std::make_shared<nn::LinearLayer>(weight, at::Tensor());
}

std::vector<Target> targets_of(const std::vector<LayerShape>& shapes) {
  std::vector<Target> targets;
  for (const LayerShape& shape : shapes)
    targets.push_back({"unet", "layer" + std::to_string(targets.size()), layer_of(shape)});
  return targets;
}

/// Stable Diffusion 1.5's 128 attention projections.
const std::vector<Target>& attention() {
  static const std::vector<Target> targets = [] {
    std::vector<LayerShape> layers;
    const auto add = [&](int blocks, std::int64_t width) {
      for (int block = 0; block < blocks; ++block) {
        for (int i = 0; i < 6; ++i) layers.push_back({width, width});
        for (int i = 0; i < 2; ++i) layers.push_back({width, 768});
      }
    };
    add(5, 320);
    add(5, 640);
    add(6, 1280);
    return targets_of(layers);
  }();
  return targets;
}

std::int64_t count(const Method& method, const std::vector<Target>& targets) {
  FactorTable factors;
  std::int64_t total = 0;
  for (const Target& target : targets)
    total += parameter_count(method, LayerShape::of(target.layer->weight()), factors);
  return total;
}

/// The method's text with the fallbacks left out.
std::string ranks(const BudgetedMethod& plan) {
  std::string text;
  for (const PartSpec& part : plan.method.parts)
    text += (text.empty() ? "" : "+") + part.name + std::to_string(part.integer("rank"));
  return text;
}

std::string fit(std::int64_t budget, const char* method = "trm+tr") {
  return ranks(fit_budget(parse_method(method), budget, attention(), FactorTable()));
}

TEST(Budget, TextsAreNumbersOfParameters) {
  EXPECT_EQ(parse_budget("400000"), 400'000);
  EXPECT_EQ(parse_budget("400k"), 400'000);
  EXPECT_EQ(parse_budget("0.4M"), 400'000);
  EXPECT_EQ(parse_budget(".4m"), 400'000);
  EXPECT_EQ(parse_budget("1.2G"), 1'200'000'000);
  EXPECT_EQ(parse_budget("1"), 1);
  for (const char* text : {"", "k", "0", "-4k", "0.0001k", "nan", "inf", "4 k", "4kk", "4T", "0x4",
                           "1e5", "9999999G", "+4", "."})
    expect_error(ErrorCode::invalid_argument, "400k or 0.4M", [&] { parse_budget(text); });
}

TEST(Budget, PaperSizesComeOut) {
  EXPECT_EQ(fit(400'288), "trm2+tr6");
  EXPECT_EQ(fit(400'287), "trm2+tr5");
  EXPECT_EQ(fit(941'440, "trm+lora"), "trm2+lora4");
  EXPECT_EQ(fit(941'440, "lora+trm"), "lora4+trm2");  // whatever the order
  EXPECT_EQ(fit(400'288, "tlora"), "trm2+tr6");
  EXPECT_EQ(fit(parse_budget("0.8M"), "lora"), "lora4");
  EXPECT_EQ(fit(797'183, "lora"), "lora3");
  EXPECT_EQ(fit(144'256, "trm"), "trm2");
}

TEST(Budget, SmallBudgetsLowerTheTransformFirst) {
  EXPECT_EQ(fit(144'256 + 7'112), "trm2+tr1");
  EXPECT_EQ(fit(144'256 + 7'111), "trm1+tr4");
  EXPECT_EQ(fit(36'064 + 7'112), "trm1+tr1");
  EXPECT_EQ(fit(36'064 + 7'112, "tlora"), "trm1+tr1");
  EXPECT_EQ(fit(36'064 + 7'112, "trm+tr(rank=9)"), "trm1+tr1");
}

TEST(Budget, ARankInTheTextStays) {
  expect_error(ErrorCode::invalid_argument, "has 151368 parameters, more than 151367",
               [] { fit(144'256 + 7'111, "trm(rank=2)+tr"); });
  expect_error(ErrorCode::invalid_argument, "more than 151367",
               [] { fit(144'256 + 7'111, "tr + trm( rank = 2 )"); });
}

TEST(Budget, IsNeverExceededAndNeverWastedByARank) {
  for (const char* method : {"trm+tr", "trm+lora", "lora", "tr", "trm"})
    for (std::int64_t budget = 240'000; budget < 60'000'000; budget = budget * 17 / 10) {
      const BudgetedMethod plan =
          fit_budget(parse_method(method), budget, attention(), FactorTable());
      EXPECT_LE(plan.parameters, budget);
      EXPECT_EQ(plan.parameters, count(plan.method, attention()));
      Method more = plan.method;
      PartSpec& last = more.parts.back();
      last = with_size(last, "rank", last.integer("rank") + 1);
      EXPECT_GT(count(more, attention()), budget) << method_text(plan.method);
    }
}

TEST(Budget, OtherOptionsStayAsTheyAre) {
  const auto text = [](const char* method) {
    return fit_budget(parse_method(method), 941'440, attention(), FactorTable()).method;
  };
  EXPECT_EQ(text("trm(init=paper)+lora(init=gaussian)"),
            parse_method("trm(init=paper,rank=2)+lora(init=gaussian,rank=4)"));
  EXPECT_EQ(text("trm(rank=1)+tr(init=paper)"), parse_method("trm(rank=1)+tr(init=paper,rank=11)"));
  EXPECT_EQ(text("lora(alpha=16)"), parse_method("lora(alpha=16,rank=4)"));
  EXPECT_EQ(text("oft(block=4)+lora"), parse_method("oft(block=4)+lora(rank=3)"));
}

TEST(Budget, TableAddsUp) {
  const BudgetedMethod plan =
      fit_budget(parse_method("trm+tr"), 400'288, attention(), FactorTable());
  ASSERT_EQ(plan.rows.size(), 6u);
  EXPECT_EQ(plan.rows[1].shape.out, 320);
  EXPECT_EQ(plan.rows[1].shape.in, 768);
  EXPECT_EQ(plan.rows[1].layers, 10);
  EXPECT_EQ(to_string(plan.rows[1].in), "8x8x12");
  EXPECT_EQ(to_string(plan.rows[1].out), "4x8x10");
  std::int64_t sum = 0, layers = 0;
  for (const BudgetRow& row : plan.rows) {
    sum += row.layers * row.parameters;
    layers += row.layers;
  }
  EXPECT_EQ(sum, plan.parameters);
  EXPECT_EQ(layers, 128);
}

TEST(Budget, SplitsByHandCount) {
  FactorTable factors;
  factors.set(320, {5, 8, 8});
  EXPECT_EQ(fit_budget(parse_method("trm"), 1'000, targets_of({{320, 320}}), factors).parameters,
            612);
}

TEST(Budget, ConvolutionsCount) {
  const std::vector<Target> targets = targets_of({{320, 320, 3, 3, true}});
  EXPECT_EQ(ranks(fit_budget(parse_method("lora"), 12'800, targets, FactorTable())), "lora4");
}

TEST(Budget, EndsAtTheWeightsThemselves) {
  const BudgetedMethod plan =
      fit_budget(parse_method("lora"), 1'000'000'000'000, targets_of({{64, 64}}), FactorTable());
  EXPECT_EQ(plan.parameters, 4'096);
  EXPECT_EQ(ranks(fit_budget(parse_method("lora"), 1'000, targets_of({{1, 1}}), FactorTable())),
            "lora1");
}

TEST(Budget, TooSmallOnesAreExplained) {
  expect_error(ErrorCode::invalid_argument, "has 43176 parameters, more than 43175",
               [] { fit(43'175); });
  expect_error(ErrorCode::invalid_argument, "`include` and `exclude`", [] { fit(1); });
  expect_error(ErrorCode::invalid_argument, "did you mean \"lora\"", [] { fit(1, "lorra"); });
  expect_error(ErrorCode::invalid_argument, "two residuals", [] { fit(1, "lora+tr"); });
  expect_error(ErrorCode::invalid_argument, "nothing to spend",
               [] { fit_budget(parse_method("trm+tr"), 1'000, {}, FactorTable()); });
}

class SmallBudget : public testing::Test {
 protected:
  BudgetedMethod plan(const std::string& text, std::int64_t budget) const {
    return fit_budget(parse_method(text), budget, targets_, FactorTable());
  }
  void expect(const std::string& text, std::int64_t budget, const std::string& method) const {
    const BudgetedMethod found = plan(text, budget);
    EXPECT_EQ(found.method, parse_method(method));
    EXPECT_LE(found.parameters, budget);
    EXPECT_EQ(found.parameters, count(found.method, targets_));
  }

  std::vector<Target> targets_ = targets_of({{64, 64}, {64, 64}, {128, 64}});
};

TEST_F(SmallBudget, TheResidualGrows) {
  // lora: 128 + 128 + 192 a rank; trm: 48 R^2 each
  expect("lora", 448 * 3 + 447, "lora(rank=3)");
  expect("lora(rank=9,alpha=2)", 448 * 3, "lora(rank=3,alpha=2)");
  expect("trm+lora", 3 * 192 + 448 * 2, "trm(rank=2)+lora(rank=2)");
  expect("trm+lora", 3 * 192 + 447, "trm(rank=1)+lora(rank=1)");
  expect("trm(rank=1,init=paper)+lora", 3 * 48 + 448, "trm(rank=1,init=paper)+lora(rank=1)");
  expect("lora+magnitude", 256 + 448, "lora(rank=1)+magnitude");
  expect("dora(rank=9)", 256 + 448 * 2, "dora(rank=2)");
  expect("trm+lora+magnitude", 256 + 3 * 192 + 448 * 5, "trm(rank=2)+lora(rank=5)+magnitude");
  expect("fourierft", 3 * 777, "fourierft(n=777)");
  expect("loha", 2 * 448 * 2, "loha(rank=2)");
  expect("vera", 256 + 3 * 300, "vera(rank=300)");
}

TEST_F(SmallBudget, TheTransformGrowsAlone) {
  expect("trm", 3 * 48 * 9, "trm(rank=3)");
  expect("oft", 3 * 64 * 7 / 2, "oft(block=8)");
  expect("boft", 3 * 2 * 64 * 9, "boft(block=8)");  // 9 is odd
  expect("hra", 3 * 64 * 5, "hra(rank=4)");         // 5 is odd
  EXPECT_EQ(method_text(plan("oft", 1000000).method), "oft(block=64)");
  EXPECT_EQ(plan("oft(side=output)", 2 * 64 * 7 / 2 + 128 * 7 / 2).method,
            parse_method("oft(block=8,side=output)"));
}

TEST_F(SmallBudget, WithoutASizeItStaysAndSaysSo) {
  std::vector<std::string> said;
  const LogSink before =
      set_log_sink([&](LogLevel, std::string_view message) { said.emplace_back(message); });
  expect("diagonal", 500, "diagonal");
  expect("oft(blocks=8)", 10'000, "oft(blocks=8)");
  set_log_sink(before);
  ASSERT_EQ(said.size(), 2u);
  EXPECT_NE(said.front().find("diagonal is unchanged"), std::string::npos) << said.front();
}

TEST_F(SmallBudget, SizesThatComeToTheSameAreTheLeast) {
  const std::int64_t large = 1'000'000'000;
  EXPECT_EQ(method_text(plan("fourierft", large).method), "fourierft(n=8192)");
  // 64 = 8 x 8 and 128 = 8 x 16: from rank 8 on, no factor is split.
  EXPECT_EQ(method_text(plan("lokr", large).method), "lokr(alpha=8,rank=8)");
  EXPECT_EQ(method_text(plan("vera", large).method), "vera(rank=1024)");  // the most that exist
}

TEST_F(SmallBudget, AWholeFactorMayBeSmallerThanTwo) {
  // w1 1 x 8; w2 8 x 31 whole, or of the rank r < 15.5 with 39 r numbers
  const std::vector<Target> targets = targets_of({{64, 31}});
  EXPECT_EQ(ranks(fit_budget(parse_method("lokr"), 8 + 248, targets, FactorTable())), "lokr16");
  EXPECT_EQ(ranks(fit_budget(parse_method("lokr"), 8 + 247, targets, FactorTable())), "lokr6");
}

TEST_F(SmallBudget, ABudgetIsNeverMoreThanTheWeights) {
  EXPECT_LE(plan("lora", 1000000000).parameters, 64 * 64 * 4);
}

TEST_F(SmallBudget, WrongBudgetsAreExplained) {
  expect_error(ErrorCode::invalid_argument, "448 parameters, more than 447",
               [&] { plan("lora", 447); });
  expect_error(ErrorCode::invalid_argument, "has 1024 parameters, more than 700",
               [&] { plan("trm(rank=2)+lora", 700); });
  expect_error(ErrorCode::invalid_argument, "no method", [&] { plan("lorra", 1000); });
  // Sizes that the layers cannot have are not offered.
  expect_error(ErrorCode::invalid_argument, "hra(rank=2) on 3 layers has 384 parameters",
               [&] { plan("hra", 3 * 64); });
  expect_error(ErrorCode::invalid_argument, "oft(block=2) on 3 layers has 96 parameters",
               [&] { plan("oft", 95); });
  expect_error(ErrorCode::invalid_argument, "diagonal on 3 layers has 192 parameters",
               [&] { plan("diagonal", 191); });
}

TEST_F(SmallBudget, WhatExistsAtNoSizeIsExplained) {
  expect_error(ErrorCode::unsupported, "must divide the channels",
               [&] { plan("boft(factors=9)", 10'000); });
  expect_error(ErrorCode::unsupported, "needs a layer that has one",
               [&] { plan("lora+bias", 10'000); });
  expect_error(ErrorCode::unsupported, "is never the identity",
               [&] { plan("hra(orthogonal=yes)", 10'000); });
}

/// Layers of several shapes, with the numbers that some starts read.
std::vector<Target> mixed_layers() {
  const auto linear = [](std::int64_t out, std::int64_t in) {
    return std::make_shared<nn::LinearLayer>(golden::weight("w", {out, in}), at::Tensor());
  };
  return {{"text_encoder", "c", linear(96, 64)},
          {"unet", "a", linear(64, 96)},
          {"unet", "b", linear(64, 64)},
          {"unet", "conv",
           std::make_shared<nn::Conv2dLayer>(golden::weight("conv", {32, 16, 3, 3}), at::Tensor(),
                                             nn::Conv2dOptions{.stride = 1, .padding = 1})}};
}

/// The part that grows: of these methods the first with a size that is a residual or alone.
PartSpec& growing_part(Method& method) {
  for (PartSpec& part : method.parts)
    if (method.parts.size() == 1 || find_part(part.name).kind == PartKind::residual) return part;
  return method.parts.front();
}

Method with_size(Method method, std::int64_t size) {
  PartSpec& part = growing_part(method);
  for (const char* option : {"rank", "block", "n"})
    if (part.has(option)) part = adapt::with_size(part, option, size);
  return method;
}

std::int64_t size_in(Method method) {
  const PartSpec& part = growing_part(method);
  for (const char* option : {"rank", "block", "n"})
    if (part.has(option)) return part.integer(option);
  return 0;
}

bool exists(const Method& method, const std::vector<Target>& targets) {
  try {
    AdapterSet::create(method, targets, FactorTable(), Random(1));
    return true;
  } catch (const Error&) {
    return false;
  }
}

class BudgetOf : public testing::TestWithParam<std::pair<const char*, std::int64_t>> {};

TEST_P(BudgetOf, IsUsedUpByASizeThatExists) {
  const auto [text, smallest] = GetParam();
  const std::vector<Target> targets = mixed_layers();
  for (const std::int64_t budget : {smallest, 2 * smallest + 1, std::int64_t{3'000},
                                    std::int64_t{9'000}, std::int64_t{1'000'000}}) {
    const BudgetedMethod plan = fit_budget(parse_method(text), budget, targets, FactorTable());
    EXPECT_LE(plan.parameters, budget);
    EXPECT_EQ(plan.parameters, count(plan.method, targets));
    EXPECT_TRUE(exists(plan.method, targets)) << method_text(plan.method);
    std::int64_t sum = 0;
    for (const BudgetRow& row : plan.rows) sum += row.layers * row.parameters;
    EXPECT_EQ(sum, plan.parameters);

    constexpr std::int64_t kWeights = 64 * 96 * 2 + 64 * 64 + 32 * 16 * 9;
    const std::int64_t size = size_in(plan.method);
    for (std::int64_t larger = size + 1; larger <= size + 40; ++larger) {
      const Method more = with_size(plan.method, larger);
      const std::int64_t parameters = count(more, targets);
      EXPECT_TRUE(parameters > std::min(budget, kWeights) || parameters == plan.parameters ||
                  !exists(more, targets))
          << method_text(more) << " within " << budget;
    }
  }
  expect_error(
      ErrorCode::invalid_argument,
      "has " + std::to_string(smallest) + " parameters, more than " + std::to_string(smallest - 1),
      [&, text = text, smallest = smallest] {
        fit_budget(parse_method(text), smallest - 1, targets, FactorTable());
      });
}

// Each with the parameters of its smallest size: on 64 + 96 + 64 + 16 channels in (144 numbers in a
// patch) and 96 + 64 + 64 + 32 channels out.
INSTANTIATE_TEST_SUITE_P(
    Methods, BudgetOf,
    testing::Values(std::pair("dora", 256 + 256 + 224 + 144),
                    std::pair("trm+lora+magnitude", 256 + 256 + 224 + 144 + 48 + 68 + 48 + 24),
                    std::pair("lora(init=pissa)", 256 + 224 + 144),
                    std::pair("lora(init=orthogonal)", 2 * (256 + 224 + 144)),
                    std::pair("hra", 2 * 240), std::pair("hra(over=patches)", 2 * (224 + 144)),
                    std::pair("lokr", 64 + 20 + 64 + 20 + 64 + 16 + 16 + 44),
                    std::pair("vera", 256 + 4), std::pair("oft", 240 / 2),
                    std::pair("boft", 2 * 2 * 240), std::pair("boft(side=output)", 2 * 2 * 256),
                    std::pair("fourierft", 4), std::pair("foura", 256 + 224 + 144 + 4)));

}  // namespace
}  // namespace ringlet::adapt
