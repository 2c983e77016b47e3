// What a pass of Stable Diffusion 3 and FLUX is planned to hold in memory, beside what is counted.
#include "ringlet/pipeline/transformer_memory.h"

#include <memory>
#include <optional>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/packed_latents.h"
#include "ringlet/models/diffusion/sd3_transformer.h"
#include "ringlet/nn/byte_count.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/weight_store.h"
#include "tests/golden/formula.h"

namespace ringlet::pipeline {
namespace {

using golden::uniform;

constexpr std::int64_t kRows = 1, kWords = 24, kSide = 32;

class TransformerMemory : public testing::Test {
 protected:
  TransformerMemory() : source_(std::make_shared<nn::RandomStore>(1)) {}

  void adapt(const std::string& method) {
    if (!index_) index_ = source_.finish();
    adapters_.reset();
    adapters_.emplace(adapt::AdapterSet::create(
        adapt::parse_method(method),
        adapt::select_targets({{"transformer", &*index_}}, {.presets = {"attention+ff"}}),
        adapt::FactorTable(), Random(1)));
    adapters_->attach();
  }

  template <class Forward>
  void expect_planned(const TransformerShape& transformer, const std::string& method,
                      const Forward& forward) {
    adapt(method);
    const PassShape shape{.rows = kRows};
    const PassBlocks blocks = transformer_pass(transformer, shape, &*adapters_);
    for (const bool again : {false, true}) {
      const nn::RecomputedBlocks recomputed{.all = again};
      const nn::GradientCheckpointing guard(recomputed);
      const nn::ByteCount bytes;
      adapters_->pass([&] { return forward().sum(); }).backward();
      const double counted = static_cast<double>(bytes.peak());
      const double planned = sizeof(float) * step_peak(blocks, recomputed);
      EXPECT_NEAR(planned / counted, 1.0, 0.1) << method << (again ? ", computed again" : "");
    }
  }

  nn::WeightSource source_;
  std::optional<nn::ModuleIndex> index_;
  std::optional<adapt::AdapterSet> adapters_;
};

TEST_F(TransformerMemory, OfStableDiffusion3IsThePlanned) {
  const models::Sd3Config config{.sample_size = kSide,
                                 .in_channels = 4,
                                 .out_channels = 4,
                                 .layers = 4,
                                 .heads = 4,
                                 .head_width = 24,
                                 .text_width = 48,
                                 .pooled_width = 20,
                                 .table_side = kSide / 2,
                                 .dual_attention_layers = {0, 1},
                                 .rms_norm = true};
  const models::Sd3Transformer2DModel network(source_, config);
  for (const char* method : {"lora(rank=4)", "trm(rank=2)+tr(rank=6)", "dora(rank=4)"})
    expect_planned(TransformerShape::of(config, PictureSize::square(kSide), kWords), method, [&] {
      return network.forward(uniform("x", {kRows, 4, kSide, kSide}),
                             {.timesteps = at::full({kRows}, 500.0),
                              .text = uniform("text", {kRows, kWords, 48}),
                              .pooled = uniform("pooled", {kRows, 20})});
    });
}

TEST_F(TransformerMemory, OfFluxIsThePlanned) {
  const models::FluxConfig config{.in_channels = 16,
                                  .out_channels = 16,
                                  .layers = 2,
                                  .single_layers = 3,
                                  .heads = 4,
                                  .head_width = 24,
                                  .text_width = 48,
                                  .pooled_width = 20,
                                  .guidance_embeds = false,
                                  .axes = {8, 8, 8}};
  const models::FluxTransformer2DModel network(source_, config);
  for (const char* method : {"lora(rank=4)", "trm(rank=2)+lora(rank=4)", "oft(block=8)"})
    expect_planned(TransformerShape::of(config, PictureSize::square(kSide), kWords), method, [&] {
      return network.forward(uniform("x", {kRows, kSide * kSide / 4, 16}),
                             {.timesteps = at::full({kRows}, 500.0),
                              .text = uniform("text", {kRows, kWords, 48}),
                              .pooled = uniform("pooled", {kRows, 20}),
                              .positions = models::packed_positions(kSide, kSide, at::kCPU)});
    });
}

// Whether activations are transformed (64 tokens) or weights are formed (1024).
TEST(AdapterMemory, OfALayerIsThePlanned) {
  constexpr std::int64_t kIn = 96, kOut = 192;
  for (const std::int64_t tokens : {64, 1024})
    for (const char* method : {"lora(rank=4)", "trm(rank=2)", "trm(rank=2)+lora(rank=4)",
                               "trm(rank=2)+tr(rank=6)", "dora(rank=4)", "oft(block=8)",
                               "boft(block=4,factors=2)", "hra(rank=4)", "ia3", "diff"}) {
      const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
      const nn::Linear layer(source.at("layer"), kIn, kOut);
      const nn::ModuleIndex index = source.finish();
      adapt::AdapterSet set = adapt::AdapterSet::create(
          adapt::parse_method(method),
          adapt::select_targets({{"net", &index}}, {.include = {"net.layer"}}),
          adapt::FactorTable(), Random(1));
      set.attach();
      const at::Tensor x = uniform("x", {1, tokens, kIn}).set_requires_grad(true);
      const nn::ByteCount bytes;
      const at::Tensor y = layer(x + 1.0);
      const double counted =
          static_cast<double>(bytes.now() - static_cast<std::int64_t>(y.nbytes())) / sizeof(float);
      const double planned = kept_by_layers(layer_adapters(&set, "net"), "", {"layer"},
                                            {static_cast<double>(tokens), kIn}, {});
      // What parameters alone lead to is planned for the whole step.
      const double shared = kept_by_parameters(&set, at::kFloat);
      EXPECT_LT(planned, 1.02 * counted) << method << " of " << tokens;
      EXPECT_GT(planned + shared, 0.95 * counted) << method << " of " << tokens;
    }
}

}  // namespace
}  // namespace ringlet::pipeline
