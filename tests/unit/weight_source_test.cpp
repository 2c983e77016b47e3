#include "ringlet/nn/weight_source.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"

namespace ringlet::nn {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

WeightSource source_of(Tensors tensors, WeightOptions options = {}) {
  return WeightSource(std::make_shared<MapStore>(std::move(tensors), "model.safetensors"), options);
}

TEST(WeightSource, ScopesJoinWithDots) {
  const auto source = source_of({{"down_blocks.0.conv.weight", at::ones({2, 3})}});
  const at::Tensor weight = source.at("down_blocks").at(0).at("conv").get("weight", {2, 3});
  EXPECT_TRUE(at::equal(weight, at::ones({2, 3})));
  EXPECT_TRUE(source.at("down_blocks").at(0).has("conv.weight"));
  EXPECT_FALSE(source.has("conv.weight"));
  EXPECT_FALSE(source.at("down_blocks").has("0"));  // a scope is no tensor
  const ModuleIndex index = source.finish();
  EXPECT_EQ(index.tensors.begin()->first, "down_blocks.0.conv.weight");
}

TEST(WeightSource, AMissingTensorIsNamedInFullWithItsNearestNeighbour) {
  const auto source = source_of({{"mid.attn.to_q.wieght", at::ones({2})}});
  expect_error(ErrorCode::mismatch, "model.safetensors: tensor \"mid.attn.to_q.weight\" is missing",
               [&] { source.at("mid").at("attn").at("to_q").get("weight", {2}); });
  expect_error(ErrorCode::mismatch, "nearest name there is \"mid.attn.to_q.wieght\"",
               [&] { source.at("mid").at("attn").at("to_q").get("weight", {2}); });
  expect_error(ErrorCode::mismatch, "does not belong to a model with this config.json",
               [&] { source.get("utterly.different.name", {2}); });
}

TEST(WeightSource, AWrongShapeSaysBothShapes) {
  const auto source = source_of({{"a.weight", at::ones({4, 3})}, {"s", at::ones({})}});
  expect_error(ErrorCode::mismatch,
               "tensor \"a.weight\" has shape [4, 3], but the model's config asks for [3, 4]", [&] {
                 source.at("a").get("weight", {3, 4});
               });
  expect_error(ErrorCode::mismatch, "[4, 3]", [&] { source.at("a").get("weight", {12}); });
  expect_error(ErrorCode::mismatch, "has shape []", [&] { source.get("s", {1}); });
}

// Left-over tensors mean a checkpoint of another model: the picture would be silently wrong.
TEST(WeightSource, UnusedTensorsAreCountedAndTheFirstIsNamed) {
  const auto source =
      source_of({{"a", at::ones({1})}, {"b.weight", at::ones({1})}, {"c", at::ones({1})}});
  source.get("a", {1});
  expect_error(ErrorCode::mismatch,
               "2 tensor(s) do not belong to the model, the first: \"b.weight\"",
               [&] { source.finish(); });
}

TEST(WeightSource, BuffersOfOldExportersAreNoLeftOvers) {
  const auto source =
      source_of({{"text_model.embeddings.position_ids", at::arange(77)}, {"a", at::ones({1})}});
  source.get("a", {1});
  EXPECT_EQ(source.finish().tensors.size(), 1u);
}

TEST(WeightSource, TensorsComeInTheComputeType) {
  const Tensors tensors = {{"matrix", at::ones({2, 2}, at::kHalf)},
                           {"bias", at::ones({2}, at::kHalf)},
                           {"wide", at::ones({2}, at::kDouble)}};
  const auto source = source_of(tensors);
  EXPECT_EQ(source.get("matrix", {2, 2}).scalar_type(), at::kFloat);
  EXPECT_EQ(source.get("wide", {2}).scalar_type(), at::kFloat);
  const auto half = source_of(tensors, {.dtype = at::kBFloat16});
  EXPECT_EQ(half.get("matrix", {2, 2}).scalar_type(), at::kBFloat16);
}

// --low-memory: matrices stay 16-bit views of the file; biases and norms are small and are used
// by operations that do not widen.
TEST(WeightSource, KeepStorageTypeKeepsMatricesOnly) {
  const at::Tensor stored = at::ones({2, 2}, at::kHalf);
  const auto source = source_of({{"matrix", stored},
                                 {"kernel", at::ones({2, 2, 3, 3}, at::kBFloat16)},
                                 {"bias", at::ones({2}, at::kHalf)},
                                 {"integers", at::ones({2, 2}, at::kInt)}},
                                {.keep_storage_type = true});
  const at::Tensor matrix = source.get("matrix", {2, 2});
  EXPECT_EQ(matrix.scalar_type(), at::kHalf);
  EXPECT_EQ(matrix.const_data_ptr(), stored.const_data_ptr());  // not a copy
  EXPECT_EQ(source.get("kernel", {2, 2, 3, 3}).scalar_type(), at::kBFloat16);
  EXPECT_EQ(source.get("bias", {2}).scalar_type(), at::kFloat);
  EXPECT_EQ(source.get("integers", {2, 2}).scalar_type(), at::kFloat);
}

TEST(WeightSource, LayersAreRegisteredUnderTheirDottedName) {
  const auto source = source_of({{"mid.proj.weight", at::zeros({3, 2})},
                                 {"mid.proj.bias", at::zeros({3})},
                                 {"mid.conv.weight", at::zeros({3, 2, 1, 1})},
                                 {"mid.conv.bias", at::zeros({3})}});
  const Linear linear(source.at("mid").at("proj"), 2, 3);
  const Conv2d conv(source.at("mid").at("conv"), 2, 3, 1);
  const ModuleIndex index = source.finish();
  ASSERT_EQ(index.layers.size(), 2u);
  EXPECT_EQ(index.layers.at("mid.proj")->weight().sizes().vec(), (Shape{3, 2}));
  EXPECT_EQ(index.layers.at("mid.conv")->weight().sizes().vec(), (Shape{3, 2, 1, 1}));
  EXPECT_EQ(index.tensors.size(), 4u);
}

TEST(WeightSource, ALinearLayerWithoutBiasAsksForNone) {
  const auto source = source_of({{"to_q.weight", at::zeros({3, 2})}});
  const Linear linear(source.at("to_q"), 2, 3, /*bias=*/false);
  EXPECT_FALSE(source.finish().layers.at("to_q")->bias().defined());
}

}  // namespace
}  // namespace ringlet::nn
