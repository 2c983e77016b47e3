#include "ringlet/nn/gradient_checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/tiny_training.h"

namespace ringlet::nn {
namespace {

using golden::uniform;
using train::same_bits;

at::Tensor leaf(const std::string& name, const Shape& shape) {
  return uniform(name, shape).set_requires_grad(true);
}

/// Some inputs, a parameter that the function captures, and how often the function has run.
struct Setting {
  at::Tensor x = leaf("x", {3, 4});
  at::Tensor fixed = uniform("fixed", {3, 4});
  at::Tensor weight = leaf("weight", {4, 4});
  int calls = 0;

  at::Tensor compute(const std::vector<at::Tensor>& in) {
    ++calls;
    const at::Tensor h = at::matmul(in[0], weight).tanh() * in[1];
    return in[2].defined() ? h + in[2] : h;
  }
  /// What comes out after two such blocks, one behind the other.
  at::Tensor loss() {
    const auto block = [this](const std::vector<at::Tensor>& in) { return compute(in); };
    const at::Tensor first = checkpointed(block, {x, fixed, at::Tensor()});
    return checkpointed(block, {first, fixed, x}).exp().sum() + first.square().sum();
  }
};

TEST(GradientCheckpointing, GradientsAreThePlainOnes) {
  Setting plain, kept;
  at::Tensor expected = plain.loss();
  expected.backward();
  EXPECT_EQ(plain.calls, 2);

  const GradientCheckpointing on(true);
  const at::Tensor actual = kept.loss();
  EXPECT_EQ(kept.calls, 2);
  EXPECT_TRUE(same_bits(actual.detach(), expected.detach()));
  actual.backward();
  EXPECT_EQ(kept.calls, 4);  // each once again
  EXPECT_TRUE(at::allclose(kept.x.grad(), plain.x.grad(), 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(kept.weight.grad(), plain.weight.grad(), 1e-6, 1e-7));
  EXPECT_FALSE(kept.fixed.grad().defined());
}

TEST(GradientCheckpointing, TheBackwardPassMayComeAfterTheSwitchIsOff) {
  Setting plain, kept;
  plain.loss().backward();
  at::Tensor loss;
  {
    const GradientCheckpointing on(true);
    loss = kept.loss();
  }
  loss.backward();
  EXPECT_EQ(kept.calls, 4);
  EXPECT_TRUE(at::allclose(kept.weight.grad(), plain.weight.grad(), 1e-6, 1e-7));
}

TEST(GradientCheckpointing, GradientsAddUpOverBackwardPasses) {
  Setting plain, kept;
  const GradientCheckpointing on(true);
  kept.loss().backward();
  kept.loss().backward();
  {
    const GradientCheckpointing off(false);
    plain.loss().backward();
  }
  EXPECT_EQ(plain.calls, 2);
  EXPECT_TRUE(at::allclose(kept.weight.grad(), 2.0 * plain.weight.grad(), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(kept.x.grad(), 2.0 * plain.x.grad(), 1e-6, 1e-6));
}

// The first block of a network: its input asks for no gradient, its parameters do.
TEST(GradientCheckpointing, CapturedParametersLearnWithoutAnInputThatDoes) {
  const at::Tensor x = uniform("x", {3, 4}), weight = leaf("weight", {4, 4});
  const auto block = [&](const std::vector<at::Tensor>& in) {
    return at::matmul(in[0], weight).tanh();
  };
  block({x}).sum().backward();
  const at::Tensor expected = weight.grad().clone();
  weight.mutable_grad().reset();
  const GradientCheckpointing on(true);
  const at::Tensor out = checkpointed(block, {x});
  EXPECT_TRUE(out.requires_grad());
  out.sum().backward();
  EXPECT_TRUE(same_bits(weight.grad(), expected));
  EXPECT_FALSE(x.requires_grad());
}

TEST(GradientCheckpointing, AnInputGivenTwiceGetsBothGradients) {
  const at::Tensor x = leaf("x", {5});
  const GradientCheckpointing on(true);
  checkpointed([](const auto& in) { return in[0] * in[1]; }, {x, x}).sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), 2.0 * x.detach()));
}

TEST(GradientCheckpointing, AnInputThatIsNotUsedGetsNone) {
  const at::Tensor x = leaf("x", {5}), unused = leaf("u", {5});
  const GradientCheckpointing on(true);
  checkpointed([](const auto& in) { return in[0].exp(); }, {x, unused}).sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), x.detach().exp()));
  EXPECT_TRUE(!unused.grad().defined() || at::equal(unused.grad(), at::zeros({5})));
}

TEST(GradientCheckpointing, AResultWithoutGradientGivesNone) {
  const at::Tensor x = leaf("x", {5}), y = leaf("y", {5});
  const GradientCheckpointing on(true);
  const at::Tensor out = checkpointed([](const auto& in) { return in[0].detach() + 1.0; }, {x});
  (out * y).sum().backward();
  EXPECT_TRUE(at::allclose(y.grad(), x.detach() + 1.0));
  EXPECT_TRUE(!x.grad().defined() || at::equal(x.grad(), at::zeros({5})));
}

TEST(GradientCheckpointing, BlocksMayBeNested) {
  const at::Tensor x = leaf("x", {5}), weight = leaf("w", {5});
  const TensorFunction inner = [&](const auto& in) { return (in[0] * weight).sin(); };
  const TensorFunction outer = [&](const auto& in) {
    return checkpointed(inner, {checkpointed(inner, in) + in[0]});
  };
  outer({x}).sum().backward();
  const at::Tensor dx = x.grad().clone(), dw = weight.grad().clone();
  x.mutable_grad().reset();
  weight.mutable_grad().reset();
  const GradientCheckpointing on(true);
  const at::Tensor out = checkpointed(outer, {x});
  out.sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), dx, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(weight.grad(), dw, 1e-6, 1e-7));
}

TEST(GradientCheckpointing, ActivationsAreNotKept) {
  const at::Tensor x = leaf("x", {5});
  c10::weak_intrusive_ptr<c10::TensorImpl> middle{c10::intrusive_ptr<c10::TensorImpl>()};
  const auto block = [&](const std::vector<at::Tensor>& in) {
    const at::Tensor h = in[0].exp();
    middle = c10::weak_intrusive_ptr<c10::TensorImpl>(h.getIntrusivePtr());
    return h.square();
  };
  const auto plain = checkpointed(block, {x});
  EXPECT_FALSE(middle.expired());
  const GradientCheckpointing on(true);
  const auto kept = checkpointed(block, {x});
  EXPECT_TRUE(middle.expired());
}

TEST(GradientCheckpointing, WithoutGradientsNothingIsRecorded) {
  Setting setting;
  const GradientCheckpointing on(true);
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(setting.loss().requires_grad());
  EXPECT_EQ(setting.calls, 2);
}

TEST(GradientCheckpointing, TheSwitchIsRestored) {
  const at::Tensor x = leaf("x", {5});
  int calls = 0;
  const auto calls_of_a_pass = [&] {
    calls = 0;
    checkpointed(
        [&](const auto& in) {
          ++calls;
          return in[0].exp();
        },
        {x})
        .sum()
        .backward();
    return calls;
  };
  EXPECT_EQ(calls_of_a_pass(), 1);
  {
    const GradientCheckpointing on(true);
    {
      const GradientCheckpointing off(false);
      EXPECT_EQ(calls_of_a_pass(), 1);
    }
    EXPECT_EQ(calls_of_a_pass(), 2);
  }
  EXPECT_EQ(calls_of_a_pass(), 1);
}

}  // namespace
}  // namespace ringlet::nn
