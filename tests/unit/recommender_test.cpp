#include "ringlet/models/recommend/recommender.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

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

}  // namespace
}  // namespace ringlet::models
