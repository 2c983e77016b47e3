#include "ringlet/adapt/budget.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::adapt {
namespace {

/// Stable Diffusion 1.5's 128 attention projections.
std::vector<LayerShape> attention() {
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
  return layers;
}

std::int64_t count(const std::string& method, const std::vector<LayerShape>& layers) {
  FactorTable factors;
  std::int64_t total = 0;
  for (const LayerShape& layer : layers)
    total += parameter_count(parse_method(method), layer, factors);
  return total;
}

/// The method's text with the fallbacks left out.
std::string ranks(const BudgetPlan& plan) {
  std::string text;
  for (const PartSpec& part : plan.method.parts)
    text += (text.empty() ? "" : "+") + part.name + std::to_string(part.integer("rank"));
  return text;
}

std::string fit(std::int64_t budget, const char* method = "trm+tr") {
  return ranks(fit_budget(budget, attention(), FactorTable(), method));
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
  EXPECT_EQ(fit(941'440, "lora+trm"), "trm2+lora4");  // whatever the order
  EXPECT_EQ(fit(parse_budget("0.8M"), "lora"), "lora4");
  EXPECT_EQ(fit(797'183, "lora"), "lora3");
  EXPECT_EQ(fit(144'256, "trm"), "trm2");
}

TEST(Budget, SmallBudgetsLowerTheTransformFirst) {
  EXPECT_EQ(fit(144'256 + 7'112), "trm2+tr1");
  EXPECT_EQ(fit(144'256 + 7'111), "trm1+tr4");
  EXPECT_EQ(fit(36'064 + 7'112), "trm1+tr1");
}

TEST(Budget, IsNeverExceededAndNeverWastedByARank) {
  for (const char* method : {"trm+tr", "trm+lora", "lora", "tr", "trm"})
    for (std::int64_t budget = 240'000; budget < 60'000'000; budget = budget * 17 / 10) {
      const BudgetPlan plan = fit_budget(budget, attention(), FactorTable(), method);
      EXPECT_LE(plan.parameters, budget);
      EXPECT_EQ(plan.parameters, count(plan.method.text(), attention()));
      Method more = plan.method;
      PartSpec& last = more.parts.back();
      last = parse_method(last.name + "(rank=" + std::to_string(last.integer("rank") + 1) + ")")
                 .parts.front();
      EXPECT_GT(count(more.text(), attention()), budget) << plan.method.text();
    }
}

TEST(Budget, OtherOptionsStayAsTheyAre) {
  const auto text = [](const char* method) {
    return fit_budget(941'440, attention(), FactorTable(), method).method.text();
  };
  EXPECT_EQ(text("trm(init=paper)+lora(init=pissa)"),
            parse_method("trm(init=paper,rank=2)+lora(init=pissa,rank=4)").text());
  EXPECT_EQ(text("trm(rank=1)+tr(init=paper)"),
            parse_method("trm(rank=1)+tr(init=paper,rank=11)").text());
  EXPECT_EQ(text("lora(alpha=16)"), parse_method("lora(alpha=16,rank=4)").text());
  EXPECT_EQ(text("oft(block=4)+lora"), parse_method("oft(block=4)+lora(rank=3)").text());
}

TEST(Budget, TableAddsUp) {
  const BudgetPlan plan = fit_budget(400'288, attention(), FactorTable());
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
  const std::vector<LayerShape> layers = {{320, 320}};
  EXPECT_EQ(fit_budget(1'000, layers, factors, "trm").parameters, 612);
}

TEST(Budget, ConvolutionsCount) {
  const std::vector<LayerShape> layers = {{320, 320, 3, 3, true}};
  EXPECT_EQ(ranks(fit_budget(12'800, layers, FactorTable(), "lora")), "lora4");
}

TEST(Budget, EndsAtTheWeightsThemselves) {
  const std::vector<LayerShape> layers = {{64, 64}};
  const BudgetPlan plan = fit_budget(1'000'000'000'000, layers, FactorTable(), "lora");
  EXPECT_EQ(plan.parameters, 4'096);
  EXPECT_EQ(ranks(fit_budget(1'000, {{1, 1}}, FactorTable(), "lora")), "lora1");
}

TEST(Budget, TooSmallOnesAreExplained) {
  expect_error(ErrorCode::invalid_argument, "has 43176 parameters, more than 43175",
               [] { fit(43'175); });
  expect_error(ErrorCode::invalid_argument, "--exclude", [] { fit(1); });
  expect_error(ErrorCode::invalid_argument, "did you mean \"lora\"", [] { fit(1, "lorra"); });
  expect_error(ErrorCode::invalid_argument, "two residuals", [] { fit(1, "lora+tr"); });
  expect_error(ErrorCode::invalid_argument, "nothing to spend",
               [] { fit_budget(1'000, {}, FactorTable()); });
}

}  // namespace
}  // namespace ringlet::adapt
