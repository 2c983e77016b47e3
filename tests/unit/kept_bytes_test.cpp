// What each kind of layer keeps for the backward pass: the table of docs/performance.md.
#include <functional>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/nn/attention.h"
#include "ringlet/nn/byte_count.h"
#include "ringlet/nn/geglu.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_store.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;

constexpr std::int64_t kKeptRows = 2, kKeptTokens = 64, kKeptWidth = 32, kKeptHeads = 4;

class KeptBytes : public testing::Test {
 protected:
  WeightSource source_ = WeightSource(std::make_shared<RandomStore>(1));

  /// Numbers that are kept besides the result. The input is a tensor that nobody else holds, so
  /// that it counts where the layer keeps it.
  static std::int64_t kept(const at::Tensor& x,
                           const std::function<at::Tensor(const at::Tensor&)>& layer) {
    const at::Tensor leaf = x.detach().set_requires_grad(true);
    const ByteCount bytes;
    const at::Tensor y = layer(leaf + 1.0);
    EXPECT_TRUE(y.requires_grad());
    return (bytes.now() - static_cast<std::int64_t>(y.nbytes())) /
           static_cast<std::int64_t>(sizeof(float));
  }
  static at::Tensor tokens(std::int64_t width = kKeptWidth) {
    return uniform("x", {kKeptRows, kKeptTokens, width});
  }
  static at::Tensor pixels() {
    return uniform("p", {kKeptRows, kKeptWidth, 8, 8}).contiguous(at::MemoryFormat::ChannelsLast);
  }

  /// What an adapter of the method makes a linear layer keep.
  std::int64_t kept_with(const std::string& method) {
    const WeightSource source(std::make_shared<RandomStore>(1));
    const Linear layer(source.at("layer"), kKeptWidth, kKeptWidth);
    const ModuleIndex index = source.finish();
    adapt::AdapterSet set = adapt::AdapterSet::create(
        adapt::parse_method(method),
        adapt::select_targets({{"net", &index}}, {.include = {"net.layer"}}), adapt::FactorTable(),
        Random(1));
    set.attach();
    return kept(tokens(), [&](const at::Tensor& x) { return layer(x); });
  }
};

TEST_F(KeptBytes, FrozenLayersKeepNothing) {
  const Linear linear(source_.at("linear"), kKeptWidth, 3 * kKeptWidth);
  EXPECT_EQ(kept(tokens(), [&](const at::Tensor& x) { return linear(x); }), 0);
  const Conv2d wide(source_.at("wide"), kKeptWidth, 2 * kKeptWidth, 3, {.padding = 1});
  EXPECT_EQ(kept(pixels(), [&](const at::Tensor& x) { return wide(x); }), 0);
  const Conv2d strided(source_.at("strided"), kKeptWidth, kKeptWidth, 3,
                       {.stride = 2, .padding = 1});
  EXPECT_EQ(kept(pixels(), [&](const at::Tensor& x) { return strided(x); }), 0);
  const Conv2d pointwise(source_.at("pointwise"), kKeptWidth, kKeptWidth, 1);
  EXPECT_EQ(kept(pixels(), [&](const at::Tensor& x) { return pointwise(x); }), 0);
}

TEST_F(KeptBytes, NormsAndActivationsKeepTheirInput) {
  const std::int64_t x = kKeptRows * kKeptTokens * kKeptWidth;
  constexpr std::int64_t kGroups = 8;
  const GroupNorm group(source_.at("group"), kGroups, kKeptWidth, 1e-5);
  EXPECT_EQ(kept(pixels(), [&](const at::Tensor& p) { return group(p); }),
            x + 2 * kKeptRows * kGroups);
  // Not the result of the norm as well.
  EXPECT_EQ(kept(pixels(), [&](const at::Tensor& p) { return group.with_silu(p); }), x);
  const LayerNorm layer(source_.at("layer"), kKeptWidth);
  EXPECT_EQ(kept(tokens(), [&](const at::Tensor& t) { return layer(t); }),
            x + 2 * kKeptRows * kKeptTokens);
  EXPECT_EQ(kept(tokens(), [](const at::Tensor& t) { return nn::silu(t); }), x);
  EXPECT_EQ(kept(tokens(2 * kKeptWidth), [](const at::Tensor& t) { return geglu(t); }), 2 * x);
}

TEST_F(KeptBytes, AttentionKeepsFourTensorsAndTheLogarithmsOfItsSums) {
  const Attention attention(source_.at("attention"), {.query_width = kKeptWidth,
                                                      .context_width = kKeptWidth,
                                                      .heads = kKeptHeads,
                                                      .head_width = kKeptWidth / kKeptHeads});
  const std::int64_t x = kKeptRows * kKeptTokens * kKeptWidth;
  EXPECT_EQ(kept(tokens(), [&](const at::Tensor& t) { return attention(t, t); }),
            4 * x + kKeptRows * kKeptHeads * kKeptTokens);
  EXPECT_TRUE(attention_is_fused(kKeptWidth / kKeptHeads, at::TensorOptions(at::kFloat)));
}

// One copy of the input of query, key and value, however many of them have an adapter.
TEST_F(KeptBytes, LayersWithACommonInputShareIt) {
  const auto attention_with = [](const std::vector<std::string>& layers) {
    const WeightSource source(std::make_shared<RandomStore>(1));
    const Attention attention(source.at("attention"), {.query_width = kKeptWidth,
                                                       .context_width = kKeptWidth,
                                                       .heads = kKeptHeads,
                                                       .head_width = kKeptWidth / kKeptHeads});
    const ModuleIndex index = source.finish();
    adapt::AdapterSet set =
        adapt::AdapterSet::create(adapt::parse_method("lora(rank=2)"),
                                  adapt::select_targets({{"net", &index}}, {.include = layers}),
                                  adapt::FactorTable(), Random(1));
    set.attach();
    return kept(tokens(), [&](const at::Tensor& t) { return attention(t, t); });
  };
  const std::int64_t x = kKeptRows * kKeptTokens * kKeptWidth, down = kKeptRows * kKeptTokens * 2;
  const std::int64_t one = attention_with({"net.attention.to_q"});
  EXPECT_EQ(one, 5 * x + kKeptRows * kKeptHeads * kKeptTokens + down);
  EXPECT_EQ(attention_with({"net.attention.to_q", "net.attention.to_k", "net.attention.to_v"}),
            one + 2 * down);
  // What goes into to_out is attention's result, which is kept anyway.
  EXPECT_EQ(attention_with({"net.attention.to_q", "net.attention.to_out.0"}), one + down);
}

TEST_F(KeptBytes, PartsOfAdaptersKeepWhatTheTableSays) {
  const std::int64_t n = kKeptRows * kKeptTokens, x = n * kKeptWidth;
  EXPECT_EQ(kept_with("lora(rank=4)"), x + 4 * n);
  EXPECT_EQ(kept_with("ia3"), x);
}

}  // namespace
}  // namespace ringlet::nn
