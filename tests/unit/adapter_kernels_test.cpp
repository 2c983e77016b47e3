// Fused kernels of adapters against the plain forms, in double: a ring's T x from its cores, and a
// low rank beside a layer. On a device they are the device's (label `device`).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/adapt/kernels/low_rank_kernel.h"
#include "ringlet/adapt/kernels/ring_kernel.h"
#include "ringlet/adapt/kernels/ring_workers.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/adapt/parts/ring.h"
#include "ringlet/adapt/parts/trm.h"
#include "ringlet/nn/small_products.h"
#include "tests/golden/formula.h"

namespace ringlet::adapt {
namespace {

using golden::uniform;
using Tensors = std::vector<at::Tensor>;

struct RingCase {
  Factors factors;
  std::int64_t rank, width, rows;
};

std::string name_of(const RingCase& c, bool transposed) {
  return to_string(c.factors) + " rank " + std::to_string(c.rank) + ", " + std::to_string(c.rows) +
         " rows of " + std::to_string(c.width) + (transposed ? " transposed" : "");
}

/// Widths with and without padding, rows that fill a tile, do not, and are several chunks.
const std::vector<RingCase>& cases() {
  static const std::vector<RingCase> all = {{{4, 8, 10}, 2, 320, 33},  {{8, 8, 10}, 2, 640, 16},
                                            {{2, 3, 5}, 1, 29, 5},     {{3, 4, 2}, 3, 24, 1},
                                            {{5, 2, 7}, 4, 70, 100},   {{4, 4, 4}, 2, 64, 1100},
                                            {{8, 10, 16}, 2, 1280, 20}};
  return all;
}

Tensors cores_of(const RingCase& c) {
  Tensors cores;
  for (std::size_t d = 0; d < c.factors.size(); ++d)
    cores.push_back(
        uniform("core " + std::to_string(d), {c.factors[d], c.factors[d], c.rank, c.rank}));
  return cores;
}

/// y, dx and the cores' gradients, by ring_matrix in double.
Tensors plain(const RingCase& c, const Tensors& cores, const at::Tensor& x, const at::Tensor& dy,
              bool transposed) {
  Tensors inputs = {x.to(at::kDouble).requires_grad_(true)};
  for (const at::Tensor& core : cores) inputs.push_back(core.to(at::kDouble).requires_grad_(true));
  const at::Tensor whole = ring_matrix({inputs[1], inputs[2], inputs[3]});
  const at::Tensor t = whole.narrow(0, 0, c.width).narrow(1, 0, c.width);
  const at::Tensor y = inputs[0].matmul(transposed ? t : t.t());
  Tensors all = {y.detach()};
  for (const at::Tensor& gradient : torch::autograd::grad({y}, inputs, {dy.to(at::kDouble)}))
    all.push_back(gradient);
  return all;
}

Tensors fused(const RingKernel& kernel, const Tensors& cores, const at::Tensor& x,
              const at::Tensor& dy, bool transposed) {
  Tensors inputs = {x.detach().clone().requires_grad_(true)};
  for (const at::Tensor& core : cores) inputs.push_back(core.detach().clone().requires_grad_(true));
  const at::Tensor y = fused_ring(kernel, inputs[0], {inputs[1], inputs[2], inputs[3]}, transposed);
  Tensors all = {y.detach()};
  for (const at::Tensor& gradient : torch::autograd::grad({y}, inputs, {dy}))
    all.push_back(gradient);
  return all;
}

void expect_close(const Tensors& found, const Tensors& expected, const std::string& what) {
  constexpr double kTolerance = 1e-5;
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double scale = expected[i].abs().max().item<double>();
    const double worst = (found[i].to(at::kDouble) - expected[i]).abs().max().item<double>();
    EXPECT_LE(worst, kTolerance * scale) << what << ", result " << i;
  }
}

TEST(RingKernel, IsTheRingsMatrixForwardAndBackward) {
  const RingKernel* kernel = ring_kernel_for(test_device(), at::kFloat);
  if (kernel == nullptr) GTEST_SKIP() << "no ring kernel for this device in this build";
  for (const RingCase& c : cases())
    for (const bool transposed : {false, true}) {
      const Tensors cores = cores_of(c);
      const at::Tensor x = uniform("x", {c.rows, c.width}), dy = uniform("dy", {c.rows, c.width});
      expect_close(fused(*kernel, cores, x, dy, transposed), plain(c, cores, x, dy, transposed),
                   name_of(c, transposed));
    }
}

TEST(RingKernel, MakesOnlyTheGradientsThatAreAskedFor) {
  const RingKernel* kernel = ring_kernel_for(test_device(), at::kFloat);
  if (kernel == nullptr) GTEST_SKIP() << "no ring kernel for this device in this build";
  const RingCase& c = cases().front();
  const Tensors cores = cores_of(c);
  const at::Tensor x = uniform("x", {c.rows, c.width}), dy = uniform("dy", {c.rows, c.width});
  const auto all = kernel->gradients(x, dy, cores, false, true, true);
  const auto of_x = kernel->gradients({}, dy, cores, false, true, false);
  const auto of_cores = kernel->gradients(x, dy, cores, false, false, true);
  EXPECT_TRUE(of_x.dcores.empty());
  EXPECT_TRUE(at::equal(of_x.dx, all.dx));
  EXPECT_FALSE(of_cores.dx.defined());
  for (std::size_t d = 0; d < cores.size(); ++d)
    EXPECT_TRUE(at::equal(of_cores.dcores[d], all.dcores[d]));
}

/// The results of a call with one thread and with two.
void expect_equal_bits_of_threads(const std::function<Tensors()>& call, const std::string& what) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Tensors one = call();
  at::set_num_threads(2);
  const Tensors two = call();
  at::set_num_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i)
    EXPECT_TRUE(at::equal(one[i], two[i])) << what << ", result " << i;
}

TEST(RingKernel, ThreadsDoNotChangeItsBits) {
  for (const RingCase& c : cases()) {
    const Tensors cores = cores_of(c);
    const at::Tensor x = uniform("x", {c.rows, c.width}), dy = uniform("dy", {c.rows, c.width});
    const auto on_cpu = [](const at::Tensor& tensor) { return tensor.cpu(); };
    Tensors there;
    std::ranges::transform(cores, std::back_inserter(there), on_cpu);
    expect_equal_bits_of_threads(
        [&] { return fused(cpu_ring_kernel(), there, x.cpu(), dy.cpu(), false); },
        name_of(c, false));
  }
}

/// What a device's blocks do, by one worker for each of `groups`.
Tensors by_workers(const RingCase& c, const Tensors& cores, const at::Tensor& x,
                   const at::Tensor& dy, bool transposed, std::int64_t memory,
                   std::int64_t groups) {
  ring_workers::Operands operands = {};
  operands.transposed = transposed;
  operands.rows = c.rows;
  operands.width = c.width;
  for (std::size_t d = 0; d < cores.size(); ++d)
    operands.cores[d] = cores[d].const_data_ptr<float>();
  operands.x = x.const_data_ptr<float>();
  operands.dy = dy.const_data_ptr<float>();
  Tensors all = {at::empty_like(x), at::empty_like(x)};
  for (const bool backward : {false, true}) {
    operands.ring = ring_workers::fitted(chain_of(cores), memory, backward);
    EXPECT_GT(operands.ring.lanes, 0);
    const at::Tensor sums = at::empty({groups, operands.ring.parameters()}, x.options());
    operands.sums = sums.data_ptr<float>();
    operands.y = all[backward ? 1 : 0].data_ptr<float>();
    std::vector<float> common(
        static_cast<std::size_t>(ring_workers::memory_of(operands.ring, backward)));
    for (std::int64_t group = 0; group < groups; ++group) {
      const auto part = backward ? ring_workers::backward : ring_workers::forward;
      part(operands, group, groups, common.data(), {0, 1});
    }
    if (!backward) continue;
    for (int core = 0; core < 3; ++core) {
      at::Tensor& one = all.emplace_back(at::empty_like(cores[static_cast<std::size_t>(core)]));
      for (std::int64_t i = 0; i < one.numel(); ++i)
        one.data_ptr<float>()[i] = ring_workers::summed(operands, core, i, groups);
    }
  }
  return all;
}

TEST(RingKernel, TheProgramOfDevicesIsTheRingsMatrix) {
  constexpr std::int64_t kMemory = 24 << 10, kGroups = 3;  // 96 KiB, what a block can share
  for (const RingCase& c : cases()) {
    if (c.rows > 100) continue;  // one worker is slow
    for (const bool transposed : {false, true}) {
      Tensors cores;
      for (const at::Tensor& core : cores_of(c)) cores.push_back(core.cpu());
      const at::Tensor x = uniform("x", {c.rows, c.width}).cpu();
      const at::Tensor dy = uniform("dy", {c.rows, c.width}).cpu();
      expect_close(by_workers(c, cores, x, dy, transposed, kMemory, kGroups),
                   plain(c, cores, x, dy, transposed), name_of(c, transposed));
    }
  }
  EXPECT_EQ(ring_workers::fitted({16, 16, 20, 2, 1, 1}, 1 << 10, true).lanes, 0);
}

TEST(RingKernel, ATransformTakesItWhereRanksAreSmall) {
  const at::Tensor x = uniform("x", {7, 24});
  for (const std::int64_t rank : {1, 2, 9}) {  // the last acts through two factors
    TensorRingMatrix trm(24, {2, 3, 4}, rank, TrmStart::asymmetric, RandomStream(1, 1));
    for (auto& [name, core] : trm.parameters())
      core.detach().add_(0.1 * uniform(name, core.sizes().vec()).to(core.device()));
    const at::Tensor t = trm.matrix().to(x.device());
    EXPECT_TRUE(
        at::allclose(trm.forward(x.to(t.device())), x.to(t.device()).matmul(t.t()), 1e-4, 1e-4))
        << rank;
    EXPECT_TRUE(
        at::allclose(trm.right_multiply(x.to(t.device())), x.to(t.device()).matmul(t), 1e-4, 1e-4))
        << rank;
  }
}

/// y + s x down^T up^T and its gradients for y, x, down and up.
Tensors low_rank(const at::Tensor& y, double s, const at::Tensor& x, const at::Tensor& down,
                 const at::Tensor& up, const at::Tensor& dy, bool fused) {
  Tensors inputs;
  for (const at::Tensor& input : {y, x, down, up})
    inputs.push_back(input.detach().clone(at::MemoryFormat::Preserve).requires_grad_(true));
  const at::Tensor sum =
      fused ? low_rank_add(inputs[0] + 0, s, inputs[1], inputs[2], inputs[3])
            : inputs[0] + s * inputs[1].matmul(inputs[2].t()).matmul(inputs[3].t());
  Tensors all = {sum.detach()};
  for (const at::Tensor& gradient : torch::autograd::grad({sum}, inputs, {dy}))
    all.push_back(gradient);
  return all;
}

TEST(LowRankKernel, IsTheProductForwardAndBackward) {
  struct Case {
    std::int64_t rows, in, out, rank;
    bool turned;  ///< up lies in memory as [rank, out]
  };
  for (const Case& c : {Case{1, 7, 5, 1, false}, Case{33, 48, 40, 4, false},
                        Case{70, 37, 131, 36, true}, Case{1100, 64, 64, 3, false}}) {
    const at::Tensor y = uniform("y", {c.rows, c.out}).cpu(),
                     dy = uniform("dy", {c.rows, c.out}).cpu(),
                     x = uniform("x", {c.rows, c.in}).cpu(),
                     down = uniform("down", {c.rank, c.in}).cpu();
    const at::Tensor up =
        c.turned ? uniform("up", {c.rank, c.out}).cpu().t() : uniform("up", {c.out, c.rank}).cpu();
    ASSERT_TRUE(has_low_rank_kernel(y, x, down, up));
    const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kDouble); };
    expect_close(low_rank(y, 0.7, x, down, up, dy, true),
                 low_rank(wide(y), 0.7, wide(x), wide(down), wide(up), wide(dy), false),
                 std::to_string(c.rows) + " rows");
    expect_equal_bits_of_threads([&] { return low_rank(y, 0.7, x, down, up, dy, true); },
                                 std::to_string(c.rows) + " rows");
  }
}

TEST(SmallProducts, AreTheSameOnEveryInstructionSet) {
  const nn::SmallProducts &widest = nn::small_products(), &portable = nn::portable_small_products();
  using nn::Places;
  for (const std::int64_t width : {3, 16, 37, 80}) {
    constexpr std::int64_t kRows = 11, kDepth = 6, kBatch = 3;
    const at::Tensor a = uniform("a", {kRows, kDepth}).cpu();
    const at::Tensor in = uniform("in", {kBatch, kDepth, width}).cpu();
    Tensors outs, dots;
    for (const nn::SmallProducts* products : {&widest, &portable}) {
      outs.push_back(at::ones({kBatch, kRows, width}));
      products->product({a.const_data_ptr<float>(), kDepth, 1, in.const_data_ptr<float>(),
                         Places::even(kDepth, width), Places::even(kBatch, kDepth * width),
                         outs.back().data_ptr<float>(), Places::even(kRows, width),
                         Places::even(kBatch, kRows * width), width, true});
      dots.push_back(at::ones({kRows, kDepth}));
      products->dot_products({outs.back().const_data_ptr<float>(), Places::even(kRows, width),
                              Places::even(kBatch, kRows * width), in.const_data_ptr<float>(),
                              Places::even(kDepth, width), Places::even(kBatch, kDepth * width),
                              dots.back().data_ptr<float>(), kDepth, 1, width});
    }
    EXPECT_TRUE(at::allclose(outs[0], at::matmul(a, in) + 1, 1e-5, 1e-5)) << width;
    EXPECT_TRUE(at::allclose(outs[0], outs[1], 1e-5, 1e-5)) << widest.name << width;
    EXPECT_TRUE(
        at::allclose(dots[0], at::matmul(outs[0], in.transpose(1, 2)).sum(0) + 1, 1e-4, 1e-4))
        << width;
    EXPECT_TRUE(at::allclose(dots[0], dots[1], 1e-4, 1e-4)) << widest.name << width;
  }
}

}  // namespace
}  // namespace ringlet::adapt
