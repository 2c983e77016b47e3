// Whole pipelines, folder and single file, against diffusers (make_pipeline.py).
#include <gtest/gtest.h>

#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

constexpr double kPipelineTolerance = 1e-4;  // relative, fp32, after ten guided steps

struct Case {
  std::string key;
  bool single_file;
};

class PipelineGolden : public testing::TestWithParam<Case> {
 protected:
  PipelineGolden() : expected_(io::load_tensors(golden::data_folder() / "pipelines.safetensors")) {
    if (!GetParam().single_file) {
      golden::write_folder(folder_ / "model", key());
      return;
    }
    golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
    io::save_tensors(folder_ / "model.safetensors", golden::single_file_tensors(key()));
  }

  const std::string& key() const { return GetParam().key; }
  pipeline::StableDiffusion open(pipeline::LoadOptions options = {}) const {
    const auto path = folder_ / (GetParam().single_file ? "model.safetensors" : "model");
    return pipeline::StableDiffusion::open(path, options);
  }
  pipeline::GenerateRequest request() const {
    pipeline::GenerateRequest request;
    request.prompt = golden::pipelines().at("prompt");
    request.negative_prompt = golden::pipelines().at("negative").get<std::string>();
    request.seeds = {1, 2};
    request.steps = 10;
    request.sampler = diffusion::find_sampler("ddim");
    request.guidance = 7.5;
    request.latents = 1.7 * golden::uniform(key() + ".latents", {2, 4, 16, 12});
    return request;
  }
  void expect_near(const std::string& part, const at::Tensor& actual) const {
    const at::Tensor& want = expected_.at(key() + part);
    ASSERT_EQ(actual.sizes(), want.sizes()) << part;
    const double difference = (actual - want).abs().max().item<double>();
    EXPECT_LE(difference, kPipelineTolerance * want.abs().max().item<double>()) << part;
  }

  TemporaryFolder folder_;
  std::map<std::string, at::Tensor> expected_;
};

TEST_P(PipelineGolden, LatentsAndImageEqualDiffusers) {
  const auto model = open();
  const at::Tensor latents = pipeline::sample(model, request());
  expect_near(".latents", latents);
  const std::vector<io::Image> images = pipeline::decode_images(model, latents);
  ASSERT_EQ(images.size(), 2u);
  const at::Tensor want = expected_.at(key() + ".pixels");
  for (std::size_t i = 0; i < images.size(); ++i) {
    ASSERT_EQ(images[i].height, want.size(2));
    const at::Tensor bytes =
        at::round((want[static_cast<std::int64_t>(i)] / 2 + 0.5).clamp(0, 1) * 255)
            .permute({1, 2, 0});
    const at::Tensor actual = at::from_blob(const_cast<std::uint8_t*>(images[i].pixels.data()),
                                            {images[i].height, images[i].width, 3}, at::kByte)
                                  .to(at::kFloat);
    EXPECT_LE((actual - bytes).abs().max().item<double>(), 1.0);
    EXPECT_LE((actual - bytes).abs().mean().item<double>(), 0.01);
  }
}

TEST_P(PipelineGolden, OptionsEqualDiffusers) {
  const auto model = open();
  auto rescaled = request();
  rescaled.guidance_rescale = 0.7;
  expect_near(".rescaled", pipeline::sample(model, rescaled));
  if (key() == "sdxl") {
    auto no_negative = request();
    no_negative.negative_prompt.reset();
    expect_near(".no_negative", pipeline::sample(model, no_negative));
  } else {
    auto skipping = request();
    skipping.clip_skip = 2;
    expect_near(".clip_skip", pipeline::sample(model, skipping));
  }
}

// A single file with the markers v_pred and ztsnr, and a folder whose scheduler says so.
TEST_P(PipelineGolden, ZeroTerminalSnrEqualsDiffusers) {
  if (GetParam().single_file) {
    auto tensors = golden::single_file_tensors(key());
    for (const char* marker : {"v_pred", "ztsnr"}) tensors[marker] = at::zeros({0});
    io::save_tensors(folder_ / "model.safetensors", tensors);
  } else {
    const auto path = folder_ / "model/scheduler/scheduler_config.json";
    Json scheduler = read_json_file(path);
    scheduler["prediction_type"] = "v_prediction";
    scheduler["rescale_betas_zero_snr"] = true;
    scheduler.erase("timestep_spacing");
    golden::write_json(path, scheduler);
  }
  const auto model = open();
  expect_near(".zero_snr", pipeline::sample(model, request()));
  auto leading = request();  // which leaves the last level out
  leading.sampler.spacing = diffusion::Spacing::leading;
  const at::Tensor& want = expected_.at(key() + ".zero_snr");
  EXPECT_GT((pipeline::sample(model, leading) - want).abs().max().item<double>(), 0.1);
  leading.sampler.spacing = diffusion::Spacing::trailing;
  expect_near(".zero_snr", pipeline::sample(model, leading));
}

INSTANTIATE_TEST_SUITE_P(Models, PipelineGolden,
                         testing::Values(Case{"sd1", false}, Case{"sd1", true}, Case{"sd2", false},
                                         Case{"sd2", true}, Case{"sdxl", false},
                                         Case{"sdxl", true}),
                         [](const auto& entry) {
                           return entry.param.key + (entry.param.single_file ? "File" : "Folder");
                         });

}  // namespace
}  // namespace ringlet
