#include "ringlet/models/recommender.h"

#include <cmath>

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

using golden::uniform;

at::Tensor ids(std::vector<std::int64_t> numbers) { return at::tensor(numbers, at::kLong); }

RecommenderConfig config(Json json) { return RecommenderConfig::from_json(json, "config.json"); }

nn::WeightSource formula() {
  return nn::WeightSource(std::make_shared<golden::FormulaStore>(), {.trainable = true});
}

TEST(RecommenderConfig, WrongSettingsAreErrors) {
  expect_error(ErrorCode::bad_format, "\"model_type\" is missing", [] { config({{"items", 3}}); });
  expect_error(ErrorCode::unsupported, "model_type \"bert4rec\"", [] {
    config({{"model_type", "bert4rec"}});
  });
  expect_error(ErrorCode::bad_format, "items must be positive", [] {
    config({{"model_type", "two-tower"}});
  });
  expect_error(ErrorCode::bad_format, "users must be positive", [] {
    config({{"model_type", "matrix-factorisation"}, {"items", 3}});
  });
}

TEST(Recommender, MatrixFactorisationIsTheProductOfTwoTables) {
  const nn::WeightSource source = formula();
  const Recommender network(
      source,
      config({{"model_type", "matrix-factorisation"}, {"items", 7}, {"users", 4}, {"width", 3}}));
  const auto tensors = source.finish().tensors;
  const at::Tensor scores = network.scores(network.users(ids({2, 0})));
  const at::Tensor want = tensors.at("users.weight")
                              .index_select(0, ids({2, 0}))
                              .matmul(tensors.at("items.weight").t()) +
                          tensors.at("items.bias");
  EXPECT_TRUE(at::allclose(scores, want, 1e-6, 1e-6));
}

TEST(Recommender, WhatAUserLacksChangesNothing) {
  const Recommender network(formula(),
                            config({{"model_type", "two-tower"}, {"items", 7}, {"width", 4}}));
  const at::Tensor brief = network.users(ids({3, 5}).view({1, 2}));
  const at::Tensor filled = network.users(ids({3, 5, -1, -1}).view({1, 4}));
  EXPECT_TRUE(at::allclose(brief, filled, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(brief, network.users(ids({5, 3}).view({1, 2})), 1e-6, 1e-7));
  const at::Tensor nothing = network.users(ids({-1}).view({1, 1}));
  EXPECT_TRUE(nothing.isfinite().all().item<bool>());
}

TEST(Recommender, ScoresOfSomeItemsAreThoseOfAll) {
  const Recommender network(formula(),
                            config({{"model_type", "two-tower"}, {"items", 7}, {"width", 4}}));
  const at::Tensor users = network.users(ids({3, 5, 0, 1}).view({2, 2}));
  const at::Tensor some = ids({6, 0, 6});
  EXPECT_TRUE(at::allclose(network.scores(users, some), network.scores(users).index_select(1, some),
                           1e-6, 1e-6));
}

TEST(PersonalisedRanking, IsTheLogisticLossOfDifferences) {
  const at::Tensor wanted = at::tensor({1.0, -0.5}),
                   others = at::tensor({0.0, 2.0, 0.5, -0.5}).view({2, 2});
  const auto term = [](double difference) { return std::log(1.0 + std::exp(-difference)); };
  EXPECT_NEAR(personalised_ranking_loss(wanted, others).item<double>(),
              (term(1.0) + term(-1.0) + term(-1.0) + term(0.0)) / 4.0, 1e-6);
  expect_error(ErrorCode::mismatch, "as many wanted items", [&] {
    personalised_ranking_loss(wanted, at::zeros({3, 2}));
  });
}

TEST(SampledSoftmax, OfAllItemsIsTheWholeSoftmax) {
  const Recommender network(formula(),
                            config({{"model_type", "two-tower"}, {"items", 7}, {"width", 4}}));
  const at::Tensor user = network.users(ids({3, 5}).view({1, 2}));
  const at::Tensor items = at::cat({ids({4}), at::arange(7, at::kLong)});  // 4 is there again
  EXPECT_NEAR(sampled_softmax_loss(network.scores(user, items), items).item<double>(),
              at::cross_entropy_loss(network.scores(user), ids({4})).item<double>(), 1e-5);
}

TEST(SampledSoftmax, AnotherUsersEqualItemIsNoMistake) {
  const at::Tensor scores = uniform("scores", {3, 3});
  const at::Tensor items = ids({8, 2, 8});
  at::Tensor rows[3] = {scores[0].slice(0, 0, 2), scores[1], scores[2].slice(0, 1)};
  const std::int64_t own[3] = {0, 1, 1};
  double want = 0.0;
  for (int i = 0; i < 3; ++i)
    want += at::cross_entropy_loss(rows[i].unsqueeze(0), ids({own[i]})).item<double>() / 3.0;
  EXPECT_NEAR(sampled_softmax_loss(scores, items).item<double>(), want, 1e-6);
}

// Frequent items are drawn often as another's: without the correction they would be pushed down.
TEST(SampledSoftmax, AShareForAllAlikeChangesNothing) {
  const at::Tensor scores = uniform("scores", {2, 3}), items = ids({4, 2, 6});
  const at::Tensor alike = at::full({3}, std::log(0.25));
  EXPECT_NEAR(sampled_softmax_loss(scores, items).item<double>(),
              sampled_softmax_loss(scores, items, alike).item<double>(), 1e-6);
  const at::Tensor share = uniform("share", {3});
  EXPECT_NEAR(sampled_softmax_loss(scores, items, share).item<double>(),
              at::cross_entropy_loss(scores - share, ids({0, 1})).item<double>(), 1e-6);
}

TEST(SampledSoftmax, OtherShapesAreErrors) {
  const at::Tensor scores = uniform("scores", {3, 3});
  expect_error(ErrorCode::mismatch, "sampled softmax", [&] {
    sampled_softmax_loss(scores, ids({1, 2}));
  });
  expect_error(ErrorCode::mismatch, "sampled softmax", [&] {
    sampled_softmax_loss(scores.slice(1, 0, 2), ids({1, 2}));
  });
  expect_error(ErrorCode::mismatch, "sampled softmax", [&] {
    sampled_softmax_loss(scores, ids({1, 2, 3}), at::zeros({2}));
  });
}

}  // namespace
}  // namespace ringlet::models
