#include "ringlet/models/vision/clip.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

using golden::uniform;

Json tiny() {
  const Json sizes = {{"hidden_size", 8},
                      {"num_hidden_layers", 1},
                      {"num_attention_heads", 2},
                      {"intermediate_size", 12}};
  Json vision = sizes, text = sizes;
  vision.update({{"image_size", 16}, {"patch_size", 8}});
  text.update({{"vocab_size", 20}, {"max_position_embeddings", 5}, {"eos_token_id", 19}});
  return {{"model_type", "clip"},
          {"projection_dim", 6},
          {"vision_config", vision},
          {"text_config", text}};
}

Clip network() {
  return {nn::WeightSource(std::make_shared<golden::FormulaStore>()),
          VisionConfig::from_json(tiny(), "config.json"),
          ClipTextConfig::from_clip_json(tiny(), "config.json")};
}

at::Tensor ids(std::int64_t count) {
  at::Tensor rows = at::full({count, 5}, 19, at::kLong);
  for (std::int64_t i = 0; i < count; ++i) rows[i][1] = i;
  return rows;
}

TEST(Clip, VectorsHaveLengthOne) {
  const Clip clip = network();
  for (const at::Tensor& rows :
       {clip.pictures(uniform("pixels", {3, 3, 16, 16})), clip.texts(ids(3))}) {
    EXPECT_EQ(rows.sizes(), (at::IntArrayRef{3, 6}));
    EXPECT_TRUE(at::allclose(rows.norm(2, 1), at::ones({3})));
  }
}

// One pair alone is always found.
TEST(Clip, APairAloneHasNoLoss) {
  EXPECT_EQ(network().loss(uniform("pixels", {1, 3, 16, 16}), ids(1)).item<double>(), 0.0);
}

TEST(Clip, PicturesAndTextsMustMakePairs) {
  expect_error(ErrorCode::mismatch, "2 pictures and 3 texts", [] {
    network().loss(at::zeros({2, 3, 16, 16}), ids(3));
  });
}

}  // namespace
}  // namespace ringlet::models
