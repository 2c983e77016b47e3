// What the blocks of diffusion transformers keep for the backward pass: the formulas of
// docs/performance.md.
#include <functional>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/joint_block.h"
#include "ringlet/models/diffusion/rotary.h"
#include "ringlet/models/diffusion/transformer_2d.h"
#include "ringlet/nn/byte_count.h"
#include "ringlet/nn/weight_store.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

using golden::uniform;

constexpr std::int64_t kWidth = 32, kHeads = 4, kRows = 2, kPicture = 12, kText = 4,
                       kAll = kPicture + kText;

class TransformerKeptBytes : public testing::Test {
 protected:
  /// Numbers that a block keeps besides its results, its inputs included.
  template <class Block>
  std::int64_t kept(
      const std::function<Block(const nn::WeightSource&)>& make,
      const std::function<at::Tensor(const Block&, const at::Tensor&, const at::Tensor&)>& run,
      const std::string& method) const {
    const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
    const Block block = make(source.at("block"));
    const nn::ModuleIndex index = source.finish();
    adapt::AdapterSet set = adapt::AdapterSet::create(
        adapt::parse_method(method),
        adapt::select_targets({{"transformer", &index}}, {.presets = {"attention+ff"}}),
        adapt::FactorTable(), Random(1));
    set.attach();
    const at::Tensor picture = uniform("p", {kRows, kPicture, kWidth}).set_requires_grad(true),
                     text = uniform("t", {kRows, kText, kWidth}).set_requires_grad(true);
    const nn::ByteCount bytes;
    const at::Tensor out = run(block, picture + 1.0, text + 1.0);
    EXPECT_TRUE(out.requires_grad());
    return (bytes.now() - static_cast<std::int64_t>(out.nbytes())) /
           static_cast<std::int64_t>(sizeof(float));
  }

  std::int64_t kept_by_joint(bool rms_norm, bool dual, const std::string& method) const {
    return kept<JointTransformerBlock>(
        [&](const nn::WeightSource& s) {
          return JointTransformerBlock(s, {.heads = heads(rms_norm), .dual_attention = dual});
        },
        [&](const auto& block, const at::Tensor& picture, const at::Tensor& text) {
          const TokenStreams out = block.forward({picture, text}, time_, {});
          return at::cat({out.picture, out.text}, 1);
        },
        method);
  }

  std::int64_t kept_by_single(const std::string& method) const {
    return kept<FluxSingleTransformerBlock>(
        [&](const nn::WeightSource& s) { return FluxSingleTransformerBlock(s, heads(true)); },
        [&](const auto& block, const at::Tensor& picture, const at::Tensor& text) {
          return block.forward(at::cat({text, picture}, 1), time_, turns_);
        },
        method);
  }

  static HeadsConfig heads(bool rms_norm) {
    return {.width = kWidth, .heads = kHeads, .head_width = kWidth / kHeads, .rms_norm = rms_norm};
  }

  const at::Tensor time_ = uniform("time", {kRows, kWidth});
  const at::Tensor turns_ = rotations(uniform("places", {kAll, 1}), {kWidth / kHeads});
};

// Two norms' inputs, query, key, value and result of attention, and GELU's input. Neither what
// norms give to layers, nor queries and keys as attention takes them, nor GELU's result.
TEST_F(TransformerKeptBytes, AJointBlockKeepsTenTensorsOfItsTokens) {
  const std::int64_t norms = 2 * 2 * kAll, sums = kHeads * kAll, modulations = 2 * 6 * kWidth;
  const std::int64_t block = 10 * kAll * kWidth + norms + sums + modulations;
  for (const bool rms_norm : {false, true})
    EXPECT_EQ(kept_by_joint(rms_norm, false, "ia3"), kRows * block) << rms_norm;
  constexpr std::int64_t kLayers = 6, kRank = 2;
  const std::int64_t narrow = kLayers * kRank * kAll;
  EXPECT_EQ(kept_by_joint(true, false, "lora(rank=2)"), kRows * (block + narrow));
  // The second attention of the picture has four more, and no norm's input.
  const std::int64_t dual = 4 * kPicture * kWidth + (2 + kHeads) * kPicture + 3 * kWidth;
  EXPECT_EQ(kept_by_joint(true, true, "ia3"), kRows * (block + dual));
}

TEST_F(TransformerKeptBytes, ASingleBlockKeepsNineTensorsOfItsTokens) {
  const std::int64_t block = 9 * kAll * kWidth + (2 + kHeads) * kAll + 3 * kWidth;
  EXPECT_EQ(kept_by_single("ia3"), kRows * block);
  EXPECT_EQ(kept_by_single("lora(rank=2)"), kRows * (block + 5 * 2 * kAll));
}

// Of a U-Net: the inputs of three norms, query, key, value and result of both attentions, and
// GEGLU's input. Of the text the input of key and value, which have adapters. Neither what norms
// give to layers, nor GEGLU's result.
TEST_F(TransformerKeptBytes, ABasicBlockKeepsSeventeenTensorsOfItsTokens) {
  const std::int64_t picture = 17 * kPicture * kWidth + (3 * 2 + 2 * kHeads) * kPicture,
                     text = 3 * kText * kWidth;
  constexpr std::int64_t kRank = 2, kOfPicture = 8, kOfText = 2;
  const std::int64_t narrow = kRank * (kOfPicture * kPicture + kOfText * kText);
  const auto run = [](const BasicTransformerBlock& block, const at::Tensor& tokens,
                      const at::Tensor& context) { return block.forward(tokens, context); };
  EXPECT_EQ(kept<BasicTransformerBlock>(
                [](const nn::WeightSource& s) {
                  return BasicTransformerBlock(
                      s,
                      {.channels = kWidth, .heads = kHeads, .layers = 1, .context_width = kWidth});
                },
                run, "lora(rank=2)"),
            kRows * (picture + text + narrow));
}

}  // namespace
}  // namespace ringlet::models
