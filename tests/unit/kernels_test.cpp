#include "ringlet/nn/kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/nn/byte_count.h"
#include "ringlet/nn/onednn.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;

/// Whether the backward pass of `operation` keeps neither x, a result of others, nor any copy.
template <class Operation>
bool keeps_nothing_of(const at::Tensor& x, const Operation& operation) {
  const auto users = x.use_count(), storage_users = x.storage().use_count();
  const ByteCount bytes;
  const at::Tensor y = operation();
  EXPECT_TRUE(y.requires_grad());
  EXPECT_EQ(bytes.now(), static_cast<std::int64_t>(y.nbytes()));
  EXPECT_EQ(x.use_count(), users);
  EXPECT_EQ(x.storage().use_count(), storage_users);
  return bytes.now() == static_cast<std::int64_t>(y.nbytes()) && x.use_count() == users &&
         x.storage().use_count() == storage_users;
}

/// Every set that there is for the CPU, with a type that it takes.
std::vector<std::pair<const KernelSet*, at::ScalarType>> cpu_sets() {
  std::vector<std::pair<const KernelSet*, at::ScalarType>> sets;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
    sets.emplace_back(&kernels_for(at::kCPU, type), type);
  static const KernelSet libtorch;
  sets.emplace_back(&libtorch, at::kFloat);
  return sets;
}

TEST(Kernels, TheTableHasOneDnnForFp32OnTheCpuAndLibTorchForAllElse) {
  const KernelSet* const onednn = onednn_kernels();
  EXPECT_EQ(kernels_for(at::kCPU, at::kFloat).name(), onednn != nullptr ? "onednn" : "libtorch");
  for (const at::ScalarType type : {at::kDouble, at::kHalf, at::kBFloat16})
    EXPECT_EQ(kernels_for(at::kCPU, type).name(), "libtorch");
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    EXPECT_EQ(kernels_for(c10::Device(at::kCUDA, 0), type).name(), "libtorch");
  const at::Tensor x = at::zeros({1}, at::kDouble);
  EXPECT_EQ(&kernels_for(x), &kernels_for(at::kCPU, at::kDouble));
}

TEST(Kernels, SetsComputeProductsAndSums) {
  for (const auto& [kernels, type] : cpu_sets()) {
    // Below and above the sizes from which a set takes other kernels.
    for (const std::int64_t width : {3, 24})
      for (const std::int64_t rows : {5, 4096}) {
        const at::Tensor a = uniform("a", {rows, width}).to(type);
        const at::Tensor b = uniform("b", {64, width}).to(type);
        const at::Tensor sum = uniform("sum", {rows, 64}).to(type);
        const at::Tensor wide = at::mm(a.to(at::kDouble), b.to(at::kDouble).t());
        const double allowed = type == at::kHalf ? 1e-2 : type == at::kBFloat16 ? 5e-2 : 1e-5;
        const auto close = [&](const at::Tensor& made, const at::Tensor& right) {
          return at::allclose(made.to(at::kDouble), right, allowed, allowed);
        };
        EXPECT_TRUE(close(kernels->matrix_product(a, b), wide)) << kernels->name() << type;
        EXPECT_TRUE(close(kernels->linear(a, b, {}), wide)) << kernels->name() << type;
        at::Tensor changed = sum.clone();
        kernels->add_product(changed, 0.5, a, b);
        EXPECT_TRUE(close(changed, sum.to(at::kDouble) + 0.5 * wide)) << kernels->name() << type;
      }
  }
}

// LibTorch's own convolution keeps its input whether or not the kernel learns.
TEST(Kernels, FrozenLayersKeepNothingOfTheirInput) {
  for (const auto& [kernels, type] : cpu_sets())
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast})
      for (const std::int64_t side : {1, 3}) {
        const Conv2dOptions options = {.stride = 1, .padding = side / 2};
        const at::Tensor kernel = uniform("k", {6, 8, side, side}).to(type);
        const at::Tensor bias = uniform("b", {6}).to(type), matrix = uniform("w", {6, 72}).to(type);
        const auto prepared = kernels->prepare_conv2d(kernel, options, WeightUse::training);
        const auto computed = [](const at::Tensor& values) {
          return values.detach().requires_grad_(true) * 1.0;
        };
        const at::Tensor x = computed(uniform("x", {4, 8, 16, 16}).to(type).contiguous(format));
        const at::Tensor rows = computed(uniform("r", {64, 72}).to(type));
        const auto what = std::string(kernels->name()) + " " + c10::toString(type);
        EXPECT_TRUE(keeps_nothing_of(x, [&, set = kernels] {
          return set->conv2d(x, kernel, bias, options);
        })) << what;
        EXPECT_TRUE(keeps_nothing_of(rows, [&, set = kernels] {
          return set->linear(rows, matrix, bias);
        })) << what;
        if (!prepared) continue;
        EXPECT_TRUE(keeps_nothing_of(x, [&] { return prepared->conv2d(x, bias); })) << what;
      }
}

TEST(Kernels, LibTorchsOwnConvolutionKeepsItsInput) {
  const at::Tensor x = uniform("x", {2, 8, 9, 10}).requires_grad_(true) * 1.0;
  const auto users = x.use_count();
  const at::Tensor y = at::conv2d(x, uniform("k", {6, 8, 3, 3}));
  EXPECT_GT(x.use_count(), users);  // why there is a function of ours
}

TEST(Kernels, AFrozenConvolutionHasLibTorchsNumbers) {
  const auto gradients_of = [](const at::Tensor& x, const auto& operation) {
    const at::Tensor leaf = x.detach().requires_grad_(true);
    const at::Tensor y = operation(leaf);
    const at::Tensor dy = uniform("dy", y.sizes().vec()).to(y.scalar_type());
    const auto dx = torch::autograd::grad({y}, {leaf}, {dy});
    return std::pair(y.detach(), dx.front());
  };
  for (const auto& [kernels, type] : cpu_sets())
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast})
      for (const std::int64_t stride : {1, 2}) {
        const at::Tensor kernel = uniform("k", {6, 8, 3, 3}).to(type);
        const at::Tensor bias = uniform("b", {6}).to(type);
        const at::Tensor x = uniform("x", {2, 8, 9, 10}).to(type).contiguous(format);
        for (const at::Tensor& b : {bias, at::Tensor()}) {
          const auto ours = gradients_of(x, [&, kernels = kernels](const at::Tensor& leaf) {
            return kernels->conv2d(leaf, kernel, b, {.stride = stride, .padding = 1});
          });
          const auto theirs = gradients_of(
              x, [&](const at::Tensor& leaf) { return at::conv2d(leaf, kernel, b, stride, 1); });
          EXPECT_TRUE(at::equal(ours.first, theirs.first)) << kernels->name() << type;
          EXPECT_TRUE(at::equal(ours.second, theirs.second)) << kernels->name() << type;
          EXPECT_EQ(ours.first.strides(), theirs.first.strides());
          EXPECT_EQ(ours.second.strides(), theirs.second.strides());
        }
      }
}

TEST(Kernels, AKernelOrABiasThatLearnsGetsItsGradient) {
  for (const auto& [kernels, type] : cpu_sets()) {
    const at::Tensor x = uniform("x", {2, 8, 9, 10}).to(type).requires_grad_(true);
    const at::Tensor kernel = uniform("k", {6, 8, 3, 3}).to(type).requires_grad_(true);
    const at::Tensor bias = uniform("b", {6}).to(type).requires_grad_(true);
    kernels->conv2d(x, kernel.detach(), bias, {}).sum().backward();
    EXPECT_TRUE(bias.grad().defined() && x.grad().defined()) << kernels->name() << type;
    kernels->conv2d(x, kernel, {}, {}).sum().backward();
    EXPECT_TRUE(kernel.grad().defined()) << kernels->name() << type;
  }
}

TEST(Kernels, AFrozenConvolutionHasGradientsOfGradients) {
  const at::Tensor kernel = uniform("k", {6, 8, 3, 3}).to(at::kDouble);
  const auto twice = [&](const auto& operation) {
    const at::Tensor x = uniform("x", {2, 8, 5, 4}).to(at::kDouble).requires_grad_(true);
    const at::Tensor y = operation(x);
    const auto dx = torch::autograd::grad({y.pow(3).sum()}, {x}, {}, /*retain_graph=*/true,
                                          /*create_graph=*/true);
    return torch::autograd::grad({dx.front().pow(2).sum()}, {x}).front();
  };
  const at::Tensor ours = twice([&](const at::Tensor& x) {
    return kernels_for(x).conv2d(x, kernel, {}, {.stride = 1, .padding = 1});
  });
  const at::Tensor theirs =
      twice([&](const at::Tensor& x) { return at::conv2d(x, kernel, {}, 1, 1); });
  EXPECT_TRUE(at::equal(ours, theirs));
}

}  // namespace
}  // namespace ringlet::nn
