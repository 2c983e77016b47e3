#include "ringlet/adapt/contraction.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"

namespace ringlet::adapt {
namespace {

Contraction choose(const LayerShape& shape, std::int64_t tokens, bool training, int rank = 2) {
  FactorTable factors;
  const nn::LinearLayer layer(at::zeros(shape.sizes()), {});  // only its shape counts
  const auto adapter = build_adapter(parse_method("trm(rank=" + std::to_string(rank) + ")"), layer,
                                     factors, Random(1), "layer");
  return choose_contraction(adapter->parts().transforms, nullptr, shape, tokens, training);
}

const std::vector<LayerShape>& shapes() {
  static const std::vector<LayerShape> all = {
      {320, 320},  {1280, 1280},  {320, 768},   {1280, 2048},           {2560, 320},
      {320, 1280}, {10240, 1280}, {1280, 5120}, {320, 320, 3, 3, true}, {640, 320, 1, 1, true}};
  return all;
}

TEST(Contraction, FewTokensGoThroughTheInput) {
  for (const LayerShape& shape : shapes())
    for (const bool training : {false, true})
      for (const int rank : {1, 2, 3})
        EXPECT_EQ(choose(shape, 1, training, rank), Contraction::through_input) << shape.out;
}

TEST(Contraction, ManyTokensAreFoldedIntoTheWeight) {
  constexpr std::int64_t kMany = 1 << 20;
  for (const LayerShape& shape : shapes())
    EXPECT_EQ(choose(shape, kMany, false), Contraction::transform_folded);
  for (const LayerShape& shape :
       {LayerShape{320, 320}, LayerShape{1280, 1280}, LayerShape{320, 1280}})
    EXPECT_EQ(choose(shape, kMany, true), Contraction::transform_folded);
}

TEST(Contraction, TrainingNeverFoldsWhereTheWeightsGradientCostsMoreThanTheRing) {
  for (const LayerShape& shape :
       {LayerShape{2560, 320}, LayerShape{10240, 1280}, LayerShape{320, 320, 3, 3, true}})
    EXPECT_EQ(choose(shape, 1 << 20, true), Contraction::through_input) << shape.out;
}

TEST(Contraction, ChoiceChangesAtMostOnceWithTheTokens) {
  for (const LayerShape& shape : shapes())
    for (const bool training : {false, true}) {
      bool folded = false;
      for (std::int64_t tokens = 1; tokens < 1'000'000; tokens = tokens * 5 / 4 + 1) {
        const bool here = choose(shape, tokens, training) == Contraction::transform_folded;
        EXPECT_TRUE(here || !folded) << shape.out << "x" << shape.in << ", " << tokens;
        folded = here;
      }
    }
}

TEST(Contraction, TrainingFoldsNoEarlierThanInference) {
  for (const LayerShape& shape : shapes())
    for (std::int64_t tokens = 1; tokens < 1'000'000; tokens = tokens * 2)
      if (choose(shape, tokens, true) == Contraction::transform_folded) {
        EXPECT_EQ(choose(shape, tokens, false), Contraction::transform_folded);
      }
}

}  // namespace
}  // namespace ringlet::adapt
