// Laws of whole generations, with the tiny models.
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "ringlet/diffusion/noise.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

using pipeline::GenerateRequest;
using pipeline::LoadOptions;
using pipeline::StableDiffusion;

// Batch size and thread count change how products are split, so the last bits of fp32 may differ.
constexpr double kSplitTolerance = 1e-5;  // relative

class GenerationLaw : public testing::TestWithParam<std::string> {
 protected:
  GenerationLaw() { golden::write_folder(root(), GetParam()); }

  std::filesystem::path root() const { return folder_ / "model"; }
  StableDiffusion open(const LoadOptions& options = {}) const {
    return StableDiffusion::open(root(), options);
  }
  static GenerateRequest request(const char* sampler = "euler-a") {
    GenerateRequest request;
    request.prompt = golden::pipelines().at("prompt");
    request.negative_prompt = "blurry";
    request.seeds = {7};
    request.steps = 6;
    request.size = {24, 32};
    request.sampler = diffusion::find_sampler(sampler);
    return request;
  }
  static void expect_near(const at::Tensor& actual, const at::Tensor& want) {
    ASSERT_EQ(actual.sizes(), want.sizes());
    EXPECT_LE((actual - want).abs().max().item<double>(),
              kSplitTolerance * want.abs().max().item<double>());
  }

  TemporaryFolder folder_;
};

// Deterministic, random per step, and random twice per step.
constexpr std::array kSamplers = {"ddim", "euler-a", "dpmpp-sde", "dpmpp-2m", "unipc"};

TEST_P(GenerationLaw, AnImageDoesNotDependOnItsBatch) {
  const StableDiffusion model = open();
  for (const char* sampler : kSamplers) {
    SCOPED_TRACE(sampler);
    GenerateRequest batch = request(sampler);
    batch.seeds = {5, 1, 9, 5};
    const at::Tensor together = pipeline::sample(model, batch);
    for (std::size_t i = 0; i < batch.seeds.size(); ++i) {
      GenerateRequest alone = request(sampler);
      alone.seeds = {batch.seeds[i]};
      expect_near(together.narrow(0, static_cast<std::int64_t>(i), 1),
                  pipeline::sample(model, alone));
    }
    expect_near(together[3], together[0]);  // the same seed
    EXPECT_GT((together[1] - together[0]).abs().max().item<double>(), 0.1);
  }
}

TEST_P(GenerationLaw, TheSameRequestGivesTheSameBytes) {
  const StableDiffusion model = open();
  for (const char* sampler : kSamplers) {
    const at::Tensor first = pipeline::sample(model, request(sampler));
    EXPECT_TRUE(at::equal(pipeline::sample(model, request(sampler)), first)) << sampler;
    EXPECT_TRUE(at::equal(pipeline::sample(open(), request(sampler)), first))
        << sampler;  // loaded anew
    EXPECT_EQ(pipeline::decode_images(model, first)[0].pixels,
              pipeline::decode_images(model, first)[0].pixels)
        << sampler;
  }
}

TEST_P(GenerationLaw, TheNumberOfThreadsDoesNotMatter) {
  const StableDiffusion model = open();
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = pipeline::sample(model, request());
  at::set_num_threads(2);
  const at::Tensor two = pipeline::sample(model, request());
  at::set_num_threads(before);
  expect_near(two, one);
}

TEST_P(GenerationLaw, GivenLatentsTakeThePlaceOfTheSeedsNoise) {
  const StableDiffusion model = open();
  GenerateRequest given = request();
  given.seeds = {3, 4};
  const at::Tensor from_seeds = pipeline::sample(model, given);
  given.latents = diffusion::seeded_noise(given.seeds, "latents", {4, 16, 12})(0);
  given.size = {};  // follow from the latents
  EXPECT_TRUE(at::equal(pipeline::sample(model, given), from_seeds));
  given.latents = given.latents + 0.1;
  EXPECT_FALSE(at::equal(pipeline::sample(model, given), from_seeds));
}

TEST_P(GenerationLaw, EveryInputMatters) {
  const StableDiffusion model = open();
  const at::Tensor base = pipeline::sample(model, request());
  const auto expect_other = [&](const char* what, auto&& change) {
    GenerateRequest changed = request();
    change(changed);
    const at::Tensor other = pipeline::sample(model, changed);
    EXPECT_GT((other - base).abs().max().item<double>(), 1e-4) << what;
  };
  expect_other("prompt", [](auto& r) { r.prompt = "dog"; });
  expect_other("negative prompt", [](auto& r) { r.negative_prompt = "dog"; });
  expect_other("guidance", [](auto& r) { r.guidance = 3.0; });
  expect_other("no guidance", [](auto& r) { r.guidance = 1.0; });
  expect_other("rescale", [](auto& r) { r.guidance_rescale = 0.7; });
  expect_other("steps", [](auto& r) { r.steps = 7; });
  expect_other("seed", [](auto& r) { r.seeds = {8}; });
  expect_other("sampler", [](auto& r) { r.sampler = diffusion::find_sampler("heun"); });
}

TEST_P(GenerationLaw, WithoutASamplerTheModelsOwnIsTaken) {
  const StableDiffusion model = open();
  GenerateRequest plain = request(model.defaults().sampler.name().c_str());
  const at::Tensor named = pipeline::sample(model, plain);
  plain.sampler = {};
  EXPECT_TRUE(at::equal(pipeline::sample(model, plain), named));
}

TEST_P(GenerationLaw, ACancelledRunLeavesNothingBehind) {
  const StableDiffusion model = open();
  const at::Tensor before = pipeline::sample(model, request());
  expect_error(ErrorCode::cancelled, "stopped after step 2", [&] {
    pipeline::sample(model, request(),
                     [](const diffusion::SamplerStep& report) { return report.step < 2; });
  });
  EXPECT_TRUE(at::equal(pipeline::sample(model, request()), before));
}

TEST_P(GenerationLaw, AFolderAndASingleFileOfTheSameTensorsAgree) {
  golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
  io::save_tensors(folder_ / "model.safetensors", golden::single_file_tensors(GetParam()));
  LoadOptions options;  // what a file of Stable Diffusion 2 predicts must be guessed
  options.files.prediction = open().noise_process()->prediction();
  const auto file = StableDiffusion::open(folder_ / "model.safetensors", options);
  const at::Tensor want = pipeline::sample(open(), request("ddim"));
  expect_near(pipeline::sample(file, request("ddim")), want);
}

INSTANTIATE_TEST_SUITE_P(Models, GenerationLaw, testing::Values("sd1", "sd2", "sdxl"));

class LowMemoryLaw : public testing::Test {
 protected:
  LowMemoryLaw() { golden::write_folder(folder_ / "model", "sd1", "fp16"); }
  StableDiffusion open(bool low_memory) const {
    LoadOptions options;
    options.low_memory = low_memory;
    return StableDiffusion::open(folder_ / "model", options);
  }
  TemporaryFolder folder_;
};

// Weights are widened at another time, which is exact: nothing may change before the tiles.
TEST_F(LowMemoryLaw, SamplingIsTheSame) {
  GenerateRequest request;
  request.prompt = "a cat";
  request.seeds = {1, 2};
  request.steps = 5;
  request.sampler = diffusion::find_sampler("ddim");
  const at::Tensor want = pipeline::sample(open(false), request);
  EXPECT_TRUE(at::equal(pipeline::sample(open(true), request), want));
}

TEST_F(LowMemoryLaw, SmallPicturesAreTheSame) {
  const at::Tensor latents = golden::uniform("latents", {2, 4, 16, 12});
  const auto want = pipeline::decode_images(open(false), latents),
             small = pipeline::decode_images(open(true), latents);
  ASSERT_EQ(small.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(small[i].pixels.size(), want[i].pixels.size());
    for (std::size_t at = 0; at < want[i].pixels.size(); ++at)
      ASSERT_LE(std::abs(int{small[i].pixels[at]} - int{want[i].pixels[at]}), 1);
  }
}

// Larger than a tile: group norms see their tile only, so single pixels differ, the mean does not.
TEST_F(LowMemoryLaw, LargePicturesAreClose) {
  const at::Tensor latents = golden::uniform("latents", {1, 4, 40, 36});
  const auto want = pipeline::decode_images(open(false), latents)[0],
             tiled = pipeline::decode_images(open(true), latents)[0];
  ASSERT_EQ(tiled.width, want.width);
  ASSERT_EQ(tiled.height, want.height);
  double sum = 0.0;
  for (std::size_t at = 0; at < want.pixels.size(); ++at)
    sum += std::abs(int{tiled.pixels[at]} - int{want.pixels[at]});
  EXPECT_LT(sum / static_cast<double>(want.pixels.size()), 8.0);
}

}  // namespace
}  // namespace ringlet
