// kohya's scale_weight_norms: after each update no low-rank change is larger than the limit.
#include "ringlet/train/norm_limit.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/train/adapter_training.h"
#include "ringlet/train/best_score.h"
#include "tests/expect_error.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::train {
namespace {

/// The Frobenius norms of all layers' changes.
std::map<std::string, double> norms_of(const adapt::AdapterSet& set) {
  std::map<std::string, double> norms;
  for (const adapt::AdapterSet::Entry& entry : set.entries())
    norms[entry.target.full_name()] =
        entry.adapter->parts().residual->weight().detach().norm().item<double>();
  return norms;
}

TEST(NormLimit, ScalesBothMatricesOfWhatIsTooLarge) {
  const adapt::TinyModel model;
  const adapt::AdapterSet set = model.adapters("lora(rank=3,alpha=2)");
  disturb(set);
  const std::map<std::string, double> before = norms_of(set);
  double least = INFINITY, largest = 0.0;
  for (const auto& [name, norm] : before) {
    least = std::min(least, norm);
    largest = std::max(largest, norm);
  }
  const double most = 0.5 * (least + largest);
  std::map<std::string, at::Tensor> values;
  for (const auto& [name, tensor] : set.parameters()) values[name] = tensor.detach().clone();
  limit_norms(set, most);
  bool scaled = false, kept = false;
  for (const auto& [name, norm] : norms_of(set)) {
    const double expected = std::min(before.at(name), most);
    EXPECT_NEAR(norm, expected, 1e-5 * expected) << name;
    (before.at(name) > most ? scaled : kept) = true;
    // Each by the root of the ratio, as kohya's apply_max_norm_regularization.
    for (const char* part : {".residual.up", ".residual.down"})
      for (const auto& [parameter, tensor] : set.parameters())
        if (parameter == name + part) {
          EXPECT_TRUE(at::allclose(
              tensor, values.at(parameter) * std::sqrt(expected / before.at(name)), 1e-5, 1e-7));
        }
  }
  EXPECT_TRUE(scaled);
  EXPECT_TRUE(kept);
  const std::map<std::string, double> once = norms_of(set);
  limit_norms(set, most);
  for (const auto& [name, norm] : norms_of(set)) EXPECT_NEAR(norm, once.at(name), 1e-5 * norm);
}

TEST(NormLimit, IsRefusedWhereThereAreNoTwoMatrices) {
  const adapt::TinyModel model;
  AdapterTrainingOptions options;
  options.scale_weight_norms = 1.0;
  options.learning = adapt::parse_method("trm(rank=2)");
  expect_error(ErrorCode::invalid_argument, "has no residual of two matrices",
               [&] { AdapterTraining(options, model.targets(), 1); });
  options.learning = adapt::parse_method("lora(rank=2)");
  options.scale_weight_norms = 0.01;
  const AdapterTraining training(options, model.targets(), 1);
  disturb(training.set());
  training.end_update();
  for (const auto& [name, norm] : norms_of(training.set())) EXPECT_LT(norm, 0.0101) << name;
  EXPECT_FALSE(settings_of(AdapterTrainingOptions()).contains("scale weight norms"));
  EXPECT_EQ(settings_of(options).at("scale weight norms"), 0.01);
}

TEST(BestScore, FollowsOneScoreInItsDirection) {
  BestScore none({});
  EXPECT_FALSE(none.add(1, {}));
  EXPECT_FALSE(none.ends());
  BestScore loss({.name = "loss", .patience = 2});
  const auto add = [&](BestScore& best, std::int64_t step, double value, bool higher) {
    const std::vector<Score> scores = {{"other", true, 1.0}, {"loss", higher, value}};
    return best.add(step, scores);
  };
  EXPECT_FALSE(add(loss, 1, std::nan(""), false));
  EXPECT_TRUE(add(loss, 2, 0.5, false));
  EXPECT_FALSE(add(loss, 3, 0.5, false));  // as good is not better
  EXPECT_FALSE(loss.ends());
  EXPECT_TRUE(add(loss, 4, 0.4, false));
  EXPECT_FALSE(add(loss, 5, 0.6, false));
  EXPECT_FALSE(loss.ends());
  EXPECT_FALSE(add(loss, 6, 0.7, false));
  EXPECT_TRUE(loss.ends());
  EXPECT_EQ(loss.step(), 4);
  EXPECT_EQ(loss.value(), 0.4);
  BestScore high({.name = "loss", .patience = 0});
  EXPECT_TRUE(add(high, 1, 0.5, true));
  EXPECT_FALSE(add(high, 2, 0.4, true));
  expect_error(ErrorCode::invalid_argument, "no score is named \"los\"", [] {
    const std::vector<Score> scores = {{"loss", false, 1.0}};
    BestScore({.name = "los", .patience = 0}).add(1, scores);
  });
}

}  // namespace
}  // namespace ringlet::train
