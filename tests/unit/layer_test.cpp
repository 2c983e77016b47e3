#include "ringlet/nn/layer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/nn/geglu.h"
#include "ringlet/nn/kernels.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_store.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;

WeightSource source_of(std::map<std::string, at::Tensor> tensors, WeightOptions options = {}) {
  return WeightSource(std::make_shared<MapStore>(std::move(tensors)), options);
}

/// Doubles the weight, and counts its calls.
class Doubling final : public Adapter {
 public:
  at::Tensor forward(const Layer& layer, const at::Tensor& x) const override {
    ++calls;
    return layer.apply(weight(layer.weight()), x);
  }
  at::Tensor weight(const at::Tensor& w0) const override { return 2.0 * w0; }
  std::vector<std::pair<std::string, at::Tensor>> parameters() const override { return {}; }
  std::string spec() const override { return "doubling"; }

  mutable int calls = 0;
};

/// What a linear layer computes: the product of the kernel set for x.
at::Tensor product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
  const at::Tensor result = kernels_for(x).linear(x, w, b);
  const auto terms = static_cast<double>(x.size(-1));
  EXPECT_TRUE(at::allclose(result, at::linear(x, w, b), 1e-5, 1e-7 * terms));
  return result;
}

TEST(Layer, AnEmptySlotIsExactlyTheBaseOperation) {
  const at::Tensor w = uniform("w", {5, 3}), b = uniform("b", {5}), x = uniform("x", {2, 7, 3});
  const auto source = source_of({{"l.weight", w}, {"l.bias", b}});
  EXPECT_TRUE(at::equal(Linear(source.at("l"), 3, 5)(x), product(x, w, b)));

  const at::Tensor kernel = uniform("k", {5, 3, 3, 3}), image = uniform("i", {2, 3, 9, 8});
  const auto conv_source = source_of({{"c.weight", kernel}, {"c.bias", b}});
  const Conv2d conv(conv_source.at("c"), 3, 5, 3, {.stride = 2, .padding = 1});
  EXPECT_TRUE(at::equal(conv(image), at::conv2d(image, kernel, b, 2, 1)));
}

TEST(Layer, AnAdapterInTheSlotIsCalledAndCanBeTakenOut) {
  const at::Tensor w = uniform("w", {5, 3}), b = uniform("b", {5}), x = uniform("x", {7, 3});
  const auto source = source_of({{"l.weight", w}, {"l.bias", b}});
  const Linear linear(source.at("l"), 3, 5);
  const ModuleIndex index = source.finish();
  const at::Tensor base = linear(x);

  const auto adapter = std::make_shared<Doubling>();
  index.layers.at("l")->adapter = adapter;  // found by name, as adapters are put in
  EXPECT_TRUE(at::equal(linear(x), product(x, 2.0 * w, b)));
  EXPECT_EQ(adapter->calls, 1);

  index.layers.at("l")->adapter = nullptr;
  EXPECT_TRUE(at::equal(linear(x), base));
  EXPECT_EQ(adapter->calls, 1);
  EXPECT_TRUE(at::equal(index.layers.at("l")->weight(), w));  // the base is never written
}

TEST(Layer, AnAdapterSeesConvolutionsWithTheirStrideAndPadding) {
  const at::Tensor kernel = uniform("k", {4, 3, 3, 3}), b = uniform("b", {4});
  const auto source = source_of({{"c.weight", kernel}, {"c.bias", b}});
  const Conv2d conv(source.at("c"), 3, 4, 3, {.stride = 2, .padding = 1});
  source.finish().layers.at("c")->adapter = std::make_shared<Doubling>();
  const at::Tensor x = uniform("x", {1, 3, 8, 8});
  EXPECT_TRUE(at::equal(conv(x), at::conv2d(x, 2.0 * kernel, b, 2, 1)));
}

// Widening must happen before the product: in fp16 the sum of 4096 products loses its digits.
TEST(Layer, NarrowStoredWeightsAreWidenedForFp32Inputs) {
  const at::Tensor w = uniform("w", {6, 4096}).to(at::kHalf), b = uniform("b", {6});
  const at::Tensor x = uniform("x", {2, 4096});
  const auto source = source_of({{"l.weight", w}, {"l.bias", b}}, {.keep_storage_type = true});
  const Linear linear(source.at("l"), 4096, 6);
  const at::Tensor y = linear(x);
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(y, product(x, w.to(at::kFloat), b)));
  const ModuleIndex index = source.finish();
  EXPECT_EQ(index.layers.at("l")->weight().scalar_type(), at::kHalf);  // and stay narrow
}

TEST(Layer, EmbeddingsComeInTheComputeType) {
  const at::Tensor table = uniform("t", {10, 4}).to(at::kHalf);
  const auto source = source_of({{"e.weight", table}}, {.keep_storage_type = true});
  const Embedding embedding(source.at("e"), 10, 4);
  const at::Tensor rows = embedding(at::tensor({3, 0, 9}, at::kLong).unsqueeze(0));
  EXPECT_EQ(rows.scalar_type(), at::kFloat);
  EXPECT_EQ(rows.sizes().vec(), (Shape{1, 3, 4}));
  EXPECT_TRUE(at::equal(rows[0][2], table[9].to(at::kFloat)));
}

at::Tensor by_autograd(const at::Tensor& both) {
  const auto halves = both.chunk(2, -1);
  return halves[0] * at::gelu(halves[1]);
}

TEST(Geglu, HasTheGradientsOfItsDefinition) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor x = uniform("x", {3, 5, 24}).to(type).requires_grad_(true);
    const at::Tensor dy = uniform("dy", {3, 5, 12}).to(type);
    const at::Tensor ours = geglu(x), theirs = by_autograd(x);
    EXPECT_TRUE(at::equal(ours, theirs));
    EXPECT_TRUE(at::equal(torch::autograd::grad({ours}, {x}, {dy}).front(),
                          torch::autograd::grad({theirs}, {x}, {dy}).front()));
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(geglu(x), theirs));
  }
}

TEST(Geglu, HasGradientsOfGradients) {
  const at::Tensor x = uniform("x", {4, 6}).to(at::kDouble).requires_grad_(true);
  const auto twice = [&](const at::Tensor& y) {
    const at::Tensor dx = torch::autograd::grad({y.pow(2).sum()}, {x}, {}, true, true).front();
    return torch::autograd::grad({dx.pow(3).sum()}, {x}).front();
  };
  EXPECT_TRUE(at::allclose(twice(geglu(x)), twice(by_autograd(x))));
}

TEST(Geglu, KeepsNothingButItsInput) {
  const at::Tensor leaf = uniform("x", {3, 24}).requires_grad_(true);
  const at::Tensor x = leaf * 2.0;
  const auto users = x.use_count();
  const at::Tensor y = geglu(x);
  EXPECT_EQ(x.use_count(), users + 1);
  EXPECT_EQ(y.use_count(), 1u);
}

}  // namespace
}  // namespace ringlet::nn
