// Inputs that are computed again in the backward pass, and the layer norm that is modulated.
#include "ringlet/nn/recomputed_inputs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/nn/byte_count.h"
#include "ringlet/nn/modulated_norm.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;

at::Tensor learning(const char* name, const Shape& shape, at::ScalarType type = at::kFloat) {
  return uniform(name, shape).to(type).set_requires_grad(true);
}

std::vector<at::Tensor> both(const std::vector<at::Tensor>& in) {
  return {at::exp(in[0]), at::sin(in[0]) * in[1]};
}

/// Two results of two inputs that both keep, as attention does.
std::vector<at::Tensor> two_products(const std::vector<at::Tensor>& in, const at::Tensor& weight) {
  return {at::matmul(in[0], weight), at::matmul(in[0] * in[1], weight)};
}

class RecomputedInputs : public testing::Test {
 protected:
  std::vector<at::Tensor> used(bool again) const {
    const auto use = [this](const auto& in) { return two_products(in, weight_); };
    return again ? use_recomputed(both, {x_, s_}, use) : use(both({x_, s_}));
  }
  static at::Tensor sum(const std::vector<at::Tensor>& results) {
    return at::square(results[0]).sum() + results[1].sum();
  }
  std::vector<at::Tensor> gradients(const at::Tensor& loss, bool keep = false) const {
    return torch::autograd::grad({loss}, {x_, s_, weight_}, {}, keep, false, true);
  }

  const at::Tensor x_ = learning("x", {3, 4, 8}), s_ = learning("s", {8}),
                   weight_ = learning("w", {8, 5});
};

TEST_F(RecomputedInputs, GiveTheSameNumbersAndGradientsAsOftenAsTheyAreAskedFor) {
  const auto plain = used(false), again = used(true);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(plain[i].equal(again[i]));
  const auto expected = gradients(sum(plain));
  const at::Tensor loss = sum(again);
  for (const bool keep : {true, false}) {
    const auto actual = gradients(loss, keep);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(actual[i].equal(expected[i]));
  }
  // One of the results alone is asked for.
  const auto first = gradients(used(true)[0].sum()), wanted = gradients(used(false)[0].sum());
  EXPECT_TRUE(first[0].equal(wanted[0]));
  EXPECT_FALSE(first[1].defined());
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(used(true)[0].equal(plain[0]));
}

TEST_F(RecomputedInputs, TakeNoMemoryBetweenThePasses) {
  const at::Tensor wide = learning("wide", {64, 32}), weight = learning("narrow", {32, 1});
  int calls = 0;
  const TensorFunction make = [&calls](const std::vector<at::Tensor>& in) {
    ++calls;
    return at::exp(in.front()) + 1.0;  // exp keeps its result, which is as large
  };
  const auto product = [&weight](const at::Tensor& made) { return at::matmul(made, weight); };
  const ByteCount bytes;
  const at::Tensor y = use_recomputed(make, {wide}, product);
  EXPECT_EQ(bytes.now(), static_cast<std::int64_t>(wide.nbytes() + y.nbytes()));
  EXPECT_EQ(calls, 1);
  torch::autograd::backward({y.sum()}, {});
  EXPECT_EQ(calls, 2);
  // The gradient of a product with a constant needs no input.
  const at::Tensor constant = weight.detach();
  use_recomputed(make, {wide}, [&](const at::Tensor& made) { return at::matmul(made, constant); })
      .sum()
      .backward();
  EXPECT_EQ(calls, 3);
}

TEST_F(RecomputedInputs, ViewsOfWhatIsThereStay) {
  const at::Tensor results = use_recomputed(
      [](const std::vector<at::Tensor>& in) { return in.front().narrow(1, 0, 2).contiguous(); },
      {x_.narrow(0, 0, 1)}, [this](const at::Tensor& made) { return at::matmul(made, weight_); });
  EXPECT_TRUE(results.equal(at::matmul(x_.narrow(0, 0, 1).narrow(1, 0, 2), weight_)));
  EXPECT_TRUE(x_.isfinite().all().item<bool>());
  results.sum().backward();
  EXPECT_GT(weight_.grad().abs().sum().item<double>(), 0.0);
}

TEST(ModulatedNorm, IsTheNormOfTheFormulaForwardsAndBackwards) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const at::Tensor x = learning("x", {2, 5, 16}, type), scale = learning("k", {2, 1, 16}, type),
                     shift = learning("s", {2, 1, 16}, type),
                     cotangent = uniform("g", {2, 5, 16}).to(type);
    const at::Tensor y = modulated_layer_norm(x, scale, shift);
    const at::Tensor expected =
        at::layer_norm(x.to(at::kDouble), {16}, {}, {}, 1e-6) * (1.0 + scale) + shift;
    const double near = type == at::kBFloat16 ? 2e-2 : type == at::kFloat ? 2e-6 : 1e-14;
    EXPECT_LT((y - expected).abs().max().item<double>(), near);
    const auto actual = torch::autograd::grad({y}, {x, scale, shift}, {cotangent});
    const auto wanted =
        torch::autograd::grad({expected}, {x, scale, shift}, {cotangent.to(at::kDouble)});
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(actual[i].scalar_type(), type);
      EXPECT_LT((actual[i] - wanted[i]).norm().item<double>(),
                near * wanted[i].norm().item<double>());
    }
  }
}

TEST(ModulatedNorm, HasAGradientOfItsGradient) {
  const at::Tensor x = learning("x", {1, 3, 6}, at::kDouble),
                   scale = learning("k", {1, 1, 6}, at::kDouble),
                   shift = learning("s", {1, 1, 6}, at::kDouble);
  const auto second = [&](const at::Tensor& y) {
    const auto first = torch::autograd::grad({at::exp(y).sum()}, {x, scale}, {}, true, true);
    return torch::autograd::grad({at::square(first[0]).sum() + at::square(first[1]).sum()},
                                 {x, scale});
  };
  const auto actual = second(modulated_layer_norm(x, scale, shift));
  const auto wanted = second(at::layer_norm(x, {6}, {}, {}, 1e-6) * (1.0 + scale) + shift);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    EXPECT_LT((actual[i] - wanted[i]).abs().max().item<double>(), 1e-10);
}

}  // namespace
}  // namespace ringlet::nn
