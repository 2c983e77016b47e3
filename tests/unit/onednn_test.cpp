#include "ringlet/nn/onednn.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/nn/patch_rows.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;

at::Tensor leaf(const std::string& name, at::IntArrayRef shape) {
  return uniform(name, shape.vec()).set_requires_grad(true);
}

/// Output and gradients of `function` for fresh leaves of the given shapes.
template <class Function>
std::vector<at::Tensor> with_gradients(const std::vector<std::vector<std::int64_t>>& shapes,
                                       const Function& function) {
  std::vector<at::Tensor> leaves;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    leaves.push_back(leaf("leaf" + std::to_string(i), shapes[i]));
  at::Tensor out = function(leaves);
  std::vector<at::Tensor> results = {out.detach()};
  (out * uniform("weights", out.sizes().vec())).sum().backward();
  for (const at::Tensor& tensor : leaves) results.push_back(tensor.grad());
  return results;
}

void expect_close(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].defined(), b[i].defined()) << i;
    if (a[i].defined()) {
      EXPECT_TRUE(at::allclose(a[i], b[i], 1e-4, 1e-5)) << i;
    }
  }
}

class OneDnn : public testing::Test {
 protected:
  void SetUp() override {
    if (kernels == nullptr) GTEST_SKIP() << "this LibTorch has no oneDNN";
  }

  const KernelSet* const kernels = onednn_kernels();
};

TEST_F(OneDnn, LinearHasTheGradientsOfInputWeightAndBias) {
  for (const std::vector<std::int64_t>& x : {std::vector<std::int64_t>{7, 12}, {2, 7, 12}}) {
    const std::vector<std::vector<std::int64_t>> shapes = {x, {5, 12}, {5}};
    expect_close(
        with_gradients(shapes, [&](auto& in) { return kernels->linear(in[0], in[1], in[2]); }),
        with_gradients(shapes, [](auto& in) { return at::linear(in[0], in[1], in[2]); }));
  }
}

TEST_F(OneDnn, LinearTakesNonContiguousInputsAndNoBias) {
  const std::vector<std::vector<std::int64_t>> shapes = {{12, 7}, {5, 12}};
  expect_close(
      with_gradients(shapes, [&](auto& in) { return kernels->linear(in[0].t(), in[1], {}); }),
      with_gradients(shapes, [](auto& in) { return at::linear(in[0].t(), in[1]); }));
}

TEST_F(OneDnn, ResultsMayBeChangedInPlace) {
  const std::vector<std::vector<std::int64_t>> shapes = {{2, 7, 12}, {5, 12}};
  expect_close(
      with_gradients(shapes, [&](auto& in) { return kernels->linear(in[0], in[1], {}).add_(1.0); }),
      with_gradients(shapes, [](auto& in) { return at::linear(in[0], in[1]).add_(1.0); }));
}

TEST_F(OneDnn, ConvolutionsHaveTheGradientOfTheirInput) {
  for (const WeightUse use : {WeightUse::inference, WeightUse::training, WeightUse::streamed})
    for (const std::int64_t stride : {1, 2})
      for (const std::int64_t side : {1, 3}) {
        const at::Tensor kernel = uniform("k", {6, 8, side, side}), bias = uniform("b", {6});
        const std::int64_t padding = side / 2;
        const auto prepared =
            kernels->prepare_conv2d(kernel, {.stride = stride, .padding = padding}, use);
        // Of the sizes only the first chooses the layout; all have to be right.
        for (const nn::Shape& size : {nn::Shape{2, 8, 9, 10}, nn::Shape{5, 8, 4, 3}}) {
          const std::vector<std::vector<std::int64_t>> shapes = {size};
          expect_close(
              with_gradients(shapes, [&](auto& in) { return prepared->conv2d(in[0], bias); }),
              with_gradients(shapes, [&](auto& in) {
                return at::conv2d(in[0], kernel, bias, stride, padding);
              }));
        }
      }
}

// Kernels so wide that training computes them from the patches of a picture.
TEST_F(OneDnn, WideKernelsThatAreTrainedAroundAreTheMatricesThatTheyAre) {
  const at::Tensor kernel = 0.01 * uniform("k", {1024, 768, 3, 3}), bias = uniform("b", {1024});
  for (const std::int64_t stride : {1, 2}) {
    const Conv2dOptions options = {.stride = stride, .padding = 1};
    const auto prepared = kernels->prepare_conv2d(kernel, options, WeightUse::training);
    EXPECT_TRUE(prepared->reads_weight());  // no copy
    const auto narrow = kernels->prepare_conv2d(kernel.to(at::kHalf), options, WeightUse::training);
    EXPECT_FALSE(narrow->reads_weight());
    EXPECT_FALSE(kernels->prepare_conv2d(kernel, options, WeightUse::inference)->reads_weight());
    const auto streamed =
        kernels->prepare_conv2d(kernel.to(at::kHalf), options, WeightUse::streamed);
    for (const nn::Shape& size : {nn::Shape{2, 768, 5, 4}, nn::Shape{1, 768, 19, 17}}) {
      const std::vector<std::vector<std::int64_t>> shapes = {size};
      const auto right = with_gradients(
          shapes, [&](auto& in) { return at::conv2d(in[0], kernel, bias, stride, 1); });
      expect_close(with_gradients(shapes, [&](auto& in) { return prepared->conv2d(in[0], bias); }),
                   right);
      const auto rounded =
          with_gradients(shapes, [&](auto& in) { return narrow->conv2d(in[0], bias); });
      EXPECT_TRUE(at::allclose(rounded[0], right[0], 1e-2, 1e-2));
      expect_close(with_gradients(shapes, [&](auto& in) { return streamed->conv2d(in[0], bias); }),
                   rounded);
    }
  }
}

TEST_F(OneDnn, PointwiseKernelsAreMatricesOfTheirOwnType) {
  const std::vector<std::vector<std::int64_t>> shapes = {{2, 8, 5, 4}};
  const at::Tensor bias = uniform("b", {6});
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor kernel = uniform("k", {6, 8, 1, 1}).to(type);
    const auto prepared = kernels->prepare_conv2d(kernel, {}, WeightUse::inference);
    EXPECT_TRUE(prepared->reads_weight());
    expect_close(with_gradients(shapes, [&](auto& in) { return prepared->conv2d(in[0], bias); }),
                 with_gradients(shapes, [&](auto& in) {
                   return at::conv2d(in[0], kernel.to(at::kFloat), bias);
                 }));
  }
}

TEST_F(OneDnn, NarrowMatricesAreWidenedInPieces) {
  const std::vector<std::vector<std::int64_t>> shapes = {{2, 7, 2048}};
  const at::Tensor bias = uniform("b", {1100});
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    const at::Tensor weight = (0.05 * uniform("w", {1100, 2048})).to(type);
    expect_close(
        with_gradients(shapes, [&](auto& in) { return kernels->linear(in[0], weight, bias); }),
        with_gradients(shapes,
                       [&](auto& in) { return at::linear(in[0], weight.to(at::kFloat), bias); }));
  }
}

TEST(PatchRows, AreThePatchesThatAConvolutionSees) {
  for (const std::int64_t side : {1, 2, 3})
    for (const std::int64_t stride : {1, 2})
      for (const std::int64_t padding : {0, 1}) {
        const at::Tensor picture =
            uniform("x", {2, 5, 6, 7}).contiguous(at::MemoryFormat::ChannelsLast);
        const PatchGeometry geometry(picture.sizes(), side, {.stride = stride, .padding = padding});
        const at::Tensor columns =
            at::im2col(picture, {side, side}, {1, 1}, {padding, padding}, {stride, stride});
        const at::Tensor right = columns.transpose(1, 2).flatten(0, 1);
        ASSERT_EQ(geometry.rows(), right.size(0));
        const std::int64_t half = geometry.rows() / 2;
        const at::Tensor first = patch_rows(picture, geometry, 0, half),
                         second = patch_rows(picture, geometry, half, geometry.rows() - half);
        EXPECT_TRUE(at::equal(at::cat({first, second}), right));
        at::Tensor sum = at::zeros_like(picture);
        add_patch_rows(sum, geometry, 0, first);
        add_patch_rows(sum, geometry, half, second);
        EXPECT_TRUE(at::allclose(sum, at::col2im(columns, {6, 7}, {side, side}, {1, 1},
                                                 {padding, padding}, {stride, stride})));
      }
}

}  // namespace
}  // namespace ringlet::nn
