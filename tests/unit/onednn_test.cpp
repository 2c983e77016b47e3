#include "ringlet/nn/onednn.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

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
  for (const bool for_training : {false, true})
    for (const std::int64_t stride : {1, 2})
      for (const std::int64_t side : {1, 3}) {
        const at::Tensor kernel = uniform("k", {6, 8, side, side}), bias = uniform("b", {6});
        const std::int64_t padding = side / 2;
        const auto prepared =
            kernels->prepare_conv2d(kernel, {.stride = stride, .padding = padding}, for_training);
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

}  // namespace
}  // namespace ringlet::nn
