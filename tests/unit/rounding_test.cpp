// Differences of weights that are the rounding of their storage types.
#include "ringlet/pipeline/rounding.h"

#include <cmath>

#include <ATen/ATen.h>

#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"

namespace ringlet::pipeline {
namespace {

/// Numbers of many sizes, down to where the narrow types have no normal numbers any more.
at::Tensor numbers() {
  const at::Tensor signs = golden::uniform("signs", {40, 50}).to(at::kDouble);
  const at::Tensor powers = at::linspace(-30.0, 4.0, 50, at::kDouble);
  return signs / 3.0 * at::exp2(powers);  // no fp32 numbers
}

StoredDifference compare(const at::Tensor& a, const at::Tensor& b) {
  return compare_stored(a, a.scalar_type(), b, b.scalar_type(), "w");
}

TEST(Rounding, TheSameWeightsInAnyTwoTypesDifferByRoundingAlone) {
  const std::vector<at::ScalarType> types = {at::kDouble,   at::kFloat,         at::kHalf,
                                             at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2};
  const at::Tensor weights = numbers();
  for (const at::ScalarType a : types)
    for (const at::ScalarType b : types) {
      const std::string pair = storage_name(a) + " against " + storage_name(b);
      const StoredDifference rounded = compare(weights.to(a), weights.to(b));
      EXPECT_EQ(rounded.rounding_alone, a != b) << pair;
      EXPECT_EQ(rounded.squared > 0.0, a != b) << pair;
      // One after the other, as files are converted: what is stored last is a rounding of the
      // first.
      EXPECT_EQ(compare(weights.to(a), weights.to(a).to(b)).squared > 0.0,
                !at::equal(weights.to(a).to(b).to(at::kDouble), weights.to(a).to(at::kDouble)))
          << pair;
      EXPECT_EQ(compare(weights.to(a).to(b), weights.to(a)).rounding_alone,
                compare(weights.to(a), weights.to(a).to(b)).squared > 0.0)
          << pair;
    }
}

TEST(Rounding, ItsExpectedSizeIsThatOfTheTypes) {
  const at::Tensor weights = golden::uniform("w", {200, 100});
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn}) {
    const StoredDifference one = compare(weights, weights.to(type));
    EXPECT_NEAR(one.rounding / one.squared, 1.0, 0.1) << storage_name(type);
  }
}

TEST(Rounding, WhatWasLearntIsNoRounding) {
  const at::Tensor weights = golden::uniform("w", {30, 20});
  const at::Tensor other = weights + 0.02 * golden::uniform("change", {30, 20});
  for (const at::ScalarType type : {at::kDouble, at::kHalf, at::kBFloat16}) {
    for (const StoredDifference& one :
         {compare(weights, other.to(type)), compare(other.to(type), weights)}) {
      EXPECT_FALSE(one.rounding_alone) << storage_name(type);
      EXPECT_LT(one.rounding, 0.05 * one.squared) << storage_name(type);
    }
  }
  // A single number that is more than half a unit away.
  at::Tensor one = weights.clone();
  one[3][4] = 0.5;
  at::Tensor two = one.to(at::kBFloat16);
  EXPECT_TRUE(compare(one, two).rounding_alone);
  two[3][4] = 0.5 + 1.0 / 256.0;  // the next number of bf16
  EXPECT_FALSE(compare(one, two).rounding_alone);
}

TEST(Rounding, EqualTypesHaveNone) {
  const at::Tensor weights = golden::uniform("w", {30, 20}).to(at::kBFloat16);
  const at::Tensor next = weights * (1.0 + 1.0 / 128.0);
  EXPECT_FALSE(compare(weights, next).rounding_alone);
  EXPECT_EQ(compare(weights, next).rounding, 0.0);
  EXPECT_EQ(compare(weights, weights).squared, 0.0);
}

TEST(Rounding, WidenedNumbersTellTheirType) {
  const at::Tensor weights = golden::uniform("w", {30});
  EXPECT_EQ(stored_type(weights.to(at::kBFloat16).to(at::kFloat), at::kBFloat16), at::kBFloat16);
  EXPECT_EQ(stored_type(weights, at::kBFloat16), at::kFloat);
  EXPECT_EQ(stored_type(weights.to(at::kHalf), at::kHalf), at::kHalf);
}

TEST(Rounding, DamagedWeightsAreNamed) {
  const at::Tensor weights = at::full({4}, NAN);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    expect_error(ErrorCode::non_finite, "NaN", [&] { compare(at::zeros({4}), weights.to(type)); });
}

}  // namespace
}  // namespace ringlet::pipeline
