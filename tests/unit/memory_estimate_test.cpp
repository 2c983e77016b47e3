#include "ringlet/train/memory_estimate.h"

#include <optional>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/optimizers.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::train {
namespace {

class MemoryEstimate : public testing::Test {
 protected:
  MemoryEstimate() {
    golden::write_folder(folder_ / "model", "sd1");
    pipeline::LoadOptions load;
    load.for_training = true;
    model_.emplace(pipeline::StableDiffusion::open(folder_ / "model", load));
  }

  TrainingMemory memory(const MemoryRequest& request) const {
    return training_memory(*model_, request);
  }
  double step(MemoryRequest request, std::int64_t resolution, std::int64_t rows) const {
    request.size = PictureSize::square(resolution);
    request.rows = rows;
    return static_cast<double>(memory(request).step(recomputed_));
  }
  adapt::AdapterSet adapters(const std::string& method, const adapt::TargetOptions& targets) const {
    return adapt::AdapterSet::create(
        adapt::parse_method(method),
        adapt::select_targets({{"unet", &model_->networks().at("unet").index}}, targets),
        adapt::FactorTable(), Random(1));
  }

  TemporaryFolder folder_;
  std::optional<pipeline::StableDiffusion> model_;
  nn::RecomputedBlocks recomputed_;
};

TEST_F(MemoryEstimate, WeightsAreWhatTheFirstStepBringsIn) {
  // Matrices are read in their file, 1x1 kernels among them; a layout stands for other kernels, and
  // small ones with a stride of one get another for the backward pass.
  std::uint64_t unet = 0, text = 0;
  for (const auto& [component, network] : model_->networks())
    for (const auto& [name, layer] : network.index.layers) {
      const at::Tensor& weight = layer->weight();
      const bool matrix = weight.dim() == 2 || weight.size(2) == 1;
      const bool strides = name.find("downsamplers") != std::string::npos;
      if (component == "unet" && !matrix && !strides)
        unet += sizeof(float) * static_cast<std::uint64_t>(weight.numel());
      if (dynamic_cast<const nn::EmbeddingLayer*>(layer.get()) != nullptr || !matrix) continue;
      if (component == "unet") unet += weight.nbytes();
      if (component == "text_encoder") text += weight.nbytes();
    }
  EXPECT_GT(text, 0u);
  EXPECT_EQ(memory({.size = {32, 32}}).weights, unet);
  EXPECT_EQ(memory({.text = true, .size = {32, 32}}).weights, unet + text);
}

TEST_F(MemoryEstimate, AParameterTakesAGradientAndTwoAveragesMore) {
  EXPECT_EQ(memory({.parameters = 1000000, .size = {32, 32}}).learning, 12000000u);
  EXPECT_EQ(memory({.parameters = 1000000, .average = true, .size = {32, 32}}).learning, 16000000u);
  const std::uint64_t lions = lion().state_bytes({1000, 1000});
  EXPECT_EQ(memory({.parameters = 1000000, .optimizer_bytes = lions, .size = {32, 32}}).learning,
            8000000u);
}

TEST_F(MemoryEstimate, ActivationsGrowWithRowsAndPixels) {
  const double one = step({}, 64, 1);
  EXPECT_GT(one, 0.0);
  EXPECT_NEAR(step({}, 64, 3), 3.0 * one, 3.0);
  // But for what belongs to the prompt's tokens.
  EXPECT_GT(step({}, 128, 1), 3.0 * one);
  EXPECT_LT(step({}, 128, 1), 4.0 * one);
}

TEST_F(MemoryEstimate, PicturesNeedNotBeSquare) {
  const TrainingMemory wide = memory({.size = {128, 32}, .sampled = 1}),
                       tall = memory({.size = {32, 128}, .sampled = 1}),
                       square = memory({.size = {64, 64}, .sampled = 1}),
                       small = memory({.size = {32, 32}, .sampled = 1});
  EXPECT_EQ(wide.step({}), tall.step({}));
  EXPECT_EQ(wide.step({}), square.step({}));  // as many pixels
  EXPECT_EQ(wide.sampling, square.sampling);
  EXPECT_EQ(wide.coding, square.coding);
  EXPECT_GT(wide.step({}), 3 * small.step({}));
}

TEST_F(MemoryEstimate, CheckpointingTakesLess) {
  const double all = step({}, 64, 4);
  recomputed_.all = true;
  EXPECT_LT(step({}, 64, 4), 0.6 * all);
}

TEST_F(MemoryEstimate, AdaptersKeepTheirRanksAndInputsThatAreNotMadeAgain) {
  const adapt::AdapterSet query = adapters("lora(rank=2)", {.include = {"*attn1.to_q"}});
  const adapt::AdapterSet both =
      adapters("lora(rank=2)", {.include = {"*attn1.to_q", "*attn1.to_k"}});
  const adapt::AdapterSet all = adapters("lora(rank=2)", {.presets = {"all"}});
  const double none = step({}, 64, 1), one = step({.adapters = &query}, 64, 1);
  EXPECT_GT(one, none);
  // What query and key take in is computed again: the second adapter adds what the first one did.
  EXPECT_LT(one - none, 0.05 * none);
  EXPECT_NEAR(step({.adapters = &both}, 64, 1) - one, one - none, 1.0);
  const adapt::AdapterSet projection = adapters("lora(rank=2)", {.include = {"*proj_in"}});
  EXPECT_GT(step({.adapters = &projection}, 64, 1) - none, 2.0 * (one - none));
  EXPECT_GT(step({.adapters = &all}, 64, 1), one);
  EXPECT_GT(step({.full = true}, 64, 1), one);
}

TEST_F(MemoryEstimate, WhatElseLearnsIsAdded) {
  EXPECT_GT(step({.controlnet = true}, 64, 1), step({}, 64, 1));
  EXPECT_GT(step({.text = true}, 64, 1), step({}, 64, 1));
}

TEST_F(MemoryEstimate, StepsAndSamplesTakeTurns) {
  const TrainingMemory plain = memory({.size = {64, 64}}),
                       sampled = memory({.size = {64, 64}, .sampled = 64});
  EXPECT_EQ(plain.sampling, 0u);
  EXPECT_EQ(sampled.sum({}), sampled.program + sampled.weights + sampled.sampling);
  EXPECT_GT(plain.weights + plain.step({}), plain.coding);
  EXPECT_EQ(plain.sum({}), plain.program + plain.weights + plain.step({}));
}

TEST_F(MemoryEstimate, ThePeakBeginsAtWhatIsResident) {
  const std::uint64_t expected = memory_need(*model_, {.size = {64, 64}}).peak({});
  EXPECT_GE(expected, resident_bytes());
  EXPECT_GE(expected, peak_resident_bytes());
  EXPECT_GT(resident_bytes(), 0u);
  EXPECT_GE(peak_resident_bytes(), resident_bytes());
}

}  // namespace
}  // namespace ringlet::train
