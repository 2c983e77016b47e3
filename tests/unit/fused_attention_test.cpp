#include "ringlet/nn/fused_attention.h"

#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/nn/attention.h"
#include "ringlet/nn/attention_tiles.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;
using Tensors = std::vector<at::Tensor>;

struct AttentionCase {
  std::int64_t batch, queries, keys, heads, width;
};

/// Tiles and blocks that are full, partly full and several, widths with and without padding.
const std::vector<AttentionCase> kCases = {{1, 64, 128, 2, 16}, {2, 70, 77, 3, 40},
                                           {1, 1, 1, 1, 5},     {2, 16, 300, 2, 8},
                                           {1, 130, 33, 1, 20}, {1, 257, 257, 2, 64}};

std::string name_of(const AttentionCase& c) {
  return std::to_string(c.batch) + " x " + std::to_string(c.queries) + " queries, " +
         std::to_string(c.keys) + " keys, " + std::to_string(c.heads) + " heads of " +
         std::to_string(c.width);
}

at::Tensor by_definition(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::int64_t heads, double scale) {
  const auto split = [&](const at::Tensor& x) {
    return x.unflatten(-1, {heads, -1}).transpose(1, 2);
  };
  const at::Tensor scores = scale * at::matmul(split(q), split(k).transpose(-1, -2));
  return at::matmul(at::softmax(scores, -1), split(v)).transpose(1, 2).flatten(2);
}

Tensors inputs_of(const AttentionCase& c, double size = 1.0) {
  const std::int64_t width = c.heads * c.width;
  return {size * uniform("q", {c.batch, c.queries, width}),
          size * uniform("k", {c.batch, c.keys, width}), uniform("v", {c.batch, c.keys, width})};
}

/// y, dq, dk, dv.
template <class Attend>
Tensors passes(const Tensors& inputs, const at::Tensor& dy, const Attend& attend) {
  Tensors learning;
  for (const at::Tensor& x : inputs) learning.push_back(x.detach().requires_grad_(true));
  const at::Tensor y = attend(learning[0], learning[1], learning[2]);
  Tensors all = {y.detach()};
  for (const at::Tensor& d : torch::autograd::grad({y}, learning, {dy.to(y.scalar_type())}))
    all.push_back(d);
  return all;
}

TEST(FusedAttention, IsAttentionAndKnowsItsGradients) {
  for (const AttentionCase& c : kCases) {
    const Tensors inputs = inputs_of(c, 3.0);
    const at::Tensor dy = uniform("dy", inputs[0].sizes().vec());
    const double scale = 1.0 / std::sqrt(static_cast<double>(c.width));
    Tensors wide;
    for (const at::Tensor& x : inputs) wide.push_back(x.to(at::kDouble));
    const Tensors right = passes(wide, dy, [&](const auto& q, const auto& k, const auto& v) {
      return by_definition(q, k, v, c.heads, scale);
    });
    const Tensors made = passes(inputs, dy, [&](const auto& q, const auto& k, const auto& v) {
      return fused_attention(q, k, v, c.heads, scale);
    });
    for (std::size_t i = 0; i < right.size(); ++i)
      EXPECT_LT((made[i] - right[i]).norm().item<double>(),
                2e-6 * (1.0 + right[i].norm().item<double>()))
          << name_of(c) << ", " << i;
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(
        at::equal(fused_attention(inputs[0], inputs[1], inputs[2], c.heads, scale), made[0]));
  }
}

// One score above all others by more than an exponent holds, in the first or the last block.
TEST(FusedAttention, HoldsScoresThatAreFarApart) {
  for (const std::int64_t place : {0, 299}) {
    Tensors inputs = inputs_of({1, 3, 300, 1, 4});
    inputs[0].fill_(50.0);
    inputs[1].fill_(-50.0);
    inputs[1].select(1, place).fill_(50.0);
    const Tensors made =
        passes(inputs, at::ones_like(inputs[0]), [](const auto& q, const auto& k, const auto& v) {
          return fused_attention(q, k, v, 1, 1.0);
        });
    EXPECT_TRUE(at::allclose(made[0], inputs[2].narrow(1, place, 1).expand_as(made[0])));
    for (const at::Tensor& one : made) EXPECT_TRUE(one.isfinite().all().item<bool>());
  }
}

TEST(FusedAttention, DoesNotDependOnTheBatchNorOnThreads) {
  const AttentionCase c = {3, 150, 140, 2, 24};
  const Tensors inputs = inputs_of(c);
  const at::Tensor dy = uniform("dy", inputs[0].sizes().vec());
  const auto attend = [&](const auto& q, const auto& k, const auto& v) {
    return fused_attention(q, k, v, c.heads, 0.2);
  };
  const Tensors all = passes(inputs, dy, attend);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Tensors one =
      passes({inputs[0].narrow(0, 1, 1), inputs[1].narrow(0, 1, 1), inputs[2].narrow(0, 1, 1)},
             dy.narrow(0, 1, 1), attend);
  at::set_num_threads(threads);
  for (std::size_t i = 0; i < all.size(); ++i)
    EXPECT_TRUE(at::equal(all[i].narrow(0, 1, 1), one[i])) << i;
}

TEST(FusedAttention, TakesViewsAndIsWhatMultiHeadAttentionComputes) {
  const AttentionCase c = {2, 40, 30, 4, 8};
  const Tensors inputs = inputs_of(c);
  const auto strided = [](const at::Tensor& x) {
    return x.transpose(1, 2).contiguous().transpose(1, 2);
  };
  const at::Tensor y =
      multi_head_attention(strided(inputs[0]), strided(inputs[1]), strided(inputs[2]), c.heads);
  EXPECT_TRUE(
      at::allclose(y, by_definition(inputs[0], inputs[1], inputs[2], c.heads, 1.0 / std::sqrt(8.0)),
                   1e-5, 1e-6));
  // Masks and causal order are LibTorch's.
  const at::Tensor seen = at::ones({1, 1, 1, c.keys}, at::kBool);
  EXPECT_TRUE(at::allclose(
      multi_head_attention(inputs[0], inputs[1], inputs[2], c.heads, false, seen), y, 1e-5, 1e-6));
}

TEST(AttentionTiles, AreTheSameOnEveryInstructionSet) {
  constexpr std::int64_t kStride = kTileQueries;
  const AttentionTiles &widest = attention_tiles(), &portable = portable_attention_tiles();
  for (const std::int64_t queries : {16, 48, 64}) {
    constexpr std::int64_t kKeys = 13, kWidth = 21;
    const at::Tensor a = uniform("a", {kKeys, kWidth}), x = uniform("x", {queries - 3, kWidth});
    std::vector<Tensors> results;
    for (const AttentionTiles* tiles : {&widest, &portable}) {
      const at::Tensor columns = at::zeros({kWidth, kStride}), scores = at::ones({kKeys, kStride});
      tiles->columns(x.const_data_ptr<float>(), kWidth, queries - 3, kWidth, 2.0F,
                     columns.data_ptr<float>());
      tiles->product({kKeys, kWidth, queries, a.const_data_ptr<float>(), kWidth, 1,
                      columns.const_data_ptr<float>(), kStride, scores.data_ptr<float>(), kStride,
                      true});
      const at::Tensor product = scores.clone(), back = at::zeros_like(x),
                       g = at::ones({kKeys, kStride});
      const at::Tensor largest = at::full({kStride}, -1.0), sums = at::ones({kStride}),
                       factors = at::zeros({kStride});
      tiles->rows(columns.const_data_ptr<float>(), queries - 3, kWidth, 0.5F,
                  back.data_ptr<float>(), kWidth);
      tiles->exponentials(scores.data_ptr<float>(), kKeys, queries, largest.data_ptr<float>(),
                          sums.data_ptr<float>(), factors.data_ptr<float>());
      const at::Tensor weights = scores.clone(), again = product.clone();
      tiles->gradients(again.data_ptr<float>(), g.data_ptr<float>(), kKeys, queries,
                       largest.const_data_ptr<float>(), factors.const_data_ptr<float>());
      tiles->scale(scores.data_ptr<float>(), kKeys, queries, factors.const_data_ptr<float>());
      results.push_back(
          {columns, product, back, weights, largest, sums, factors, again, g, scores});
    }
    const auto used = [&](const at::Tensor& tile) { return tile.narrow(-1, 0, queries - 3); };
    const at::Tensor expected = 1.0 + 2.0 * at::matmul(a, x.t());
    EXPECT_TRUE(at::allclose(used(results[0][1]), expected, 1e-5, 1e-5)) << queries;
    EXPECT_TRUE(at::equal(results[0][2], x)) << queries;
    const at::Tensor most = at::clamp_min(std::get<0>(expected.max(0)), -1.0);
    EXPECT_TRUE(at::allclose(used(results[0][3]), at::exp2(expected - most), 1e-5, 1e-5))
        << queries;
    for (std::size_t i = 0; i < results[0].size(); ++i)
      EXPECT_TRUE(at::allclose(results[0][i], results[1][i], 1e-5, 1e-5))
          << widest.name << queries << " " << i;
  }
}

}  // namespace
}  // namespace ringlet::nn
