// What checkpoints say of themselves, in the words of those who write them.
#include "ringlet/formats/checkpoint_prediction.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <gtest/gtest.h>

#include "ringlet/core/text.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/formats/ldm/single_file.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;
using diffusion::Prediction;
using golden::Tensors;

const at::Tensor kMarker = at::empty({0});  // as those who mark files write it

CheckpointPrediction of(const Tensors& tensors, const io::Metadata& metadata = {},
                        const PredictionHints& hints = {}, const LdmUNet& unet = {}) {
  return checkpoint_prediction(nn::MapStore(tensors, "model.safetensors"), unet, metadata, hints);
}

LdmUNet sd2_unet(std::int64_t in_channels = 4) {
  LdmUNet unet;
  unet.linear_projection = true;
  unet.in_channels = in_channels;
  return unet;
}

TEST(CheckpointPrediction, EveryPublishedWordIsKnown) {
  for (const char* key :
       {"modelspec.prediction_type", "modelspec.predict_key", "prediction_type"}) {
    for (const char* word : {"v", "V", "v_prediction", "v-prediction", "v prediction",
                             "V_PREDICTION", "v_pred", "vpred", "velocity", " v "}) {
      const CheckpointPrediction found = of({}, {{key, word}});
      EXPECT_EQ(found.type, "v_prediction") << key << " " << word;
      EXPECT_EQ(found.source, std::string("the metadata ") + key);
      EXPECT_TRUE(found.notes.empty()) << found.notes.front();
    }
    for (const char* word : {"epsilon", "eps", "Epsilon", "noise"})
      EXPECT_EQ(of({}, {{key, word}}).type, "epsilon") << key << " " << word;
    for (const char* word : {"sample", "x0"}) EXPECT_EQ(of({}, {{key, word}}).type, "sample");
    for (const char* word : {"", "None", "null"})  // says nothing
      EXPECT_FALSE(of({}, {{key, word}}).stated) << key << " " << word;
  }
  EXPECT_EQ(of({}, {{"ss_v_parameterization", "True"}}).type, "v_prediction");
  EXPECT_EQ(of({}, {{"ss_v_parameterization", "False"}, {"ss_v2", "True"}}).type, "epsilon");
  EXPECT_EQ(of({}, {{"modelspec.architecture", "stable-diffusion-v2-768-v"}}).type, "v_prediction");
  EXPECT_EQ(of({}, {{"modelspec.architecture", "stable-diffusion-v2-512"}}).type, "epsilon");
  EXPECT_EQ(of({}, {{"ss_base_model_version", "sd_v2_v"}}).type, "v_prediction");
  EXPECT_FALSE(of({}, {{"ss_base_model_version", "sdxl_base_v1-0"}}).stated);
  EXPECT_EQ(of({}, {{"v_pred", "true"}}).type, "v_prediction");
  EXPECT_EQ(
      of({}, {{"modelspec.noise_process", "flow"}, {"modelspec.prediction_type", "velocity"}}).type,
      "flow");  // which is refused
  EXPECT_EQ(
      of({}, {{"modelspec.noise_process", "ddpm"}, {"modelspec.prediction_type", "velocity"}}).type,
      "v_prediction");
  EXPECT_EQ(of({{"v_pred", kMarker}}).type, "v_prediction");
  EXPECT_EQ(of({{"v_pred", kMarker}}).source, "the tensor v_pred");
  EXPECT_EQ(of({}).type, "epsilon");
  EXPECT_FALSE(of({}).stated);
}

TEST(CheckpointPrediction, ContradictionsAreSaidAndTheMarkerWins) {
  const auto expect = [](const CheckpointPrediction& found, const char* type, const char* note) {
    EXPECT_EQ(found.type, type);
    EXPECT_NE(join(found.notes, "\n").find(note), std::string::npos) << join(found.notes, "\n");
  };
  const io::Metadata epsilon = {{"modelspec.prediction_type", "epsilon"}};
  expect(of({{"v_pred", kMarker}}, epsilon), "v_prediction",
         "the metadata modelspec.prediction_type says \"epsilon\", but the tensor v_pred says "
         "\"v_prediction\": taken for v_prediction");
  expect(of({{"v_pred", kMarker}}, {{"modelspec.prediction_type", "karras"}}), "v_prediction",
         "says \"karras\", which is not known, and the tensor v_pred says \"v_prediction\"");
  expect(of({}, {{"modelspec.prediction_type", "v"}, {"ss_v_parameterization", "False"}}),
         "v_prediction",
         "the metadata ss_v_parameterization says \"epsilon\", but the metadata "
         "modelspec.prediction_type");
  expect(of({{"v_pred", kMarker}}, {}, {Prediction::epsilon, {}}), "epsilon",
         "the tensor v_pred says \"v_prediction\", but `prediction` says \"epsilon\"");
  expect(of({}, epsilon, {{}, PredictionStatement{"m.yaml beside the file", "v"}}), "v_prediction",
         "but m.yaml beside the file says");
  // A word that is not known stays, so that it is refused where the model is opened …
  EXPECT_EQ(of({}, {{"modelspec.prediction_type", "flow"}}).type, "flow");
  // … unless the user knows.
  EXPECT_EQ(of({}, {{"modelspec.prediction_type", "flow"}}, {Prediction::v, {}}).type,
            "v_prediction");
}

TEST(CheckpointPrediction, StableDiffusion2IsToldByItsWeights) {
  const std::string bias =
      "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
  const auto with = [&](double bound, const io::Metadata& metadata = {}, std::int64_t in = 4) {
    return of({{bias, at::linspace(-bound, bound, 320)}}, metadata, {}, sd2_unet(in));
  };
  EXPECT_EQ(with(0.3).type, "v_prediction");
  EXPECT_EQ(with(0.05).type, "epsilon");
  EXPECT_FALSE(with(0.3).stated);
  EXPECT_NE(with(0.3).source.find("assumed from the weights"), std::string::npos);
  EXPECT_EQ(with(0.3, {{"modelspec.prediction_type", "epsilon"}}).type, "epsilon");
  EXPECT_EQ(with(0.3, {}, 9).type, "epsilon");  // those for inpainting are no v models
}

TEST(CheckpointPrediction, ZeroTerminalSnrIsMarkedOrStored) {
  const auto zero = [](Tensors tensors, const io::Metadata& metadata = {}) {
    tensors["v_pred"] = kMarker;
    return of(tensors, metadata);
  };
  EXPECT_FALSE(zero({}).zero_terminal_snr);
  EXPECT_TRUE(zero({{"ztsnr", kMarker}}).zero_terminal_snr);
  EXPECT_EQ(zero({{"ztsnr", kMarker}}).snr_source, "the tensor ztsnr");
  EXPECT_TRUE(zero({}, {{"ss_zero_terminal_snr", "True"}}).zero_terminal_snr);
  EXPECT_FALSE(zero({}, {{"ss_zero_terminal_snr", "False"}}).zero_terminal_snr);
  EXPECT_EQ(zero({{"ztsnr", kMarker}}, {{"ss_zero_terminal_snr", "False"}}).notes.size(), 1u);
  EXPECT_TRUE(zero({{"alphas_cumprod", at::linspace(0.999, 0.0, 1000)}}).zero_terminal_snr);
  EXPECT_TRUE(zero({{"denoiser.sigmas", at::linspace(0.03, 4096.0, 1000)}}).zero_terminal_snr);
  for (const auto& other : {at::linspace(0.999, 0.0047, 1000), at::zeros({1000}),
                            at::full({1000}, 1.0), at::zeros({}), at::zeros({0})})
    EXPECT_FALSE(zero({{"alphas_cumprod", other}}).zero_terminal_snr);
  EXPECT_FALSE(zero({{"denoiser.sigmas", at::linspace(0.03, 14.6, 1000)}}).zero_terminal_snr);
  // An epsilon model says nothing there.
  const CheckpointPrediction epsilon = of({{"ztsnr", kMarker}});
  EXPECT_FALSE(epsilon.zero_terminal_snr);
  ASSERT_EQ(epsilon.notes.size(), 1u);
  EXPECT_NE(epsilon.notes.front().find("the tensor ztsnr says zero terminal SNR"),
            std::string::npos);
  EXPECT_TRUE(of({{"ztsnr", kMarker}}, {}, {Prediction::v, {}}).zero_terminal_snr);
}

TEST(CheckpointPrediction, TheConfigurationBesideTheFileIsRead) {
  const TemporaryFolder folder;
  const auto read = [&](const std::string& text) {
    write_file_atomically(folder / "m.yaml", text);
    const auto found = configuration_beside(folder / "m.safetensors");
    return found ? found->word : "nothing";
  };
  EXPECT_FALSE(configuration_beside(folder / "m.safetensors"));
  EXPECT_EQ(read("model:\n  params:\n    parameterization: \"v\"  # 768\n"), "v");
  EXPECT_EQ(read("model:\r\n  params:\r\n    parameterization: eps\r\n"), "eps");
  EXPECT_EQ(read("# parameterization: v\nmodel: x\n"), "nothing");
  const std::string scaling = "target: sgm.modules.diffusionmodules.denoiser_scaling.";
  EXPECT_EQ(diffusion::find_prediction(read(scaling + "VScaling")), Prediction::v);
  EXPECT_EQ(diffusion::find_prediction(read(scaling + "EpsScaling")), Prediction::epsilon);
  EXPECT_FALSE(diffusion::find_prediction(read(scaling + "VScalingWithEDMcNoise")));
}

class MarkedCheckpoint : public testing::Test {
 protected:
  MarkedCheckpoint() { golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>"); }
  void save(const std::vector<std::string>& markers, const io::Metadata& metadata = {}) const {
    Tensors tensors = golden::single_file_tensors("sdxl");
    for (const std::string& marker : markers) tensors[marker] = kMarker;
    io::save_tensors(path(), tensors, metadata);
  }
  fs::path path() const { return folder_ / "model.safetensors"; }
  static diffusion::ScheduleConfig schedule(const fs::path& model,
                                            const pipeline::LoadOptions& options = {}) {
    const auto opened = pipeline::StableDiffusion::open(model, options);
    return diffusion::ScheduleConfig::from_json(opened.files().scheduler, "scheduler");
  }
  TemporaryFolder folder_;
};

TEST_F(MarkedCheckpoint, IsSampledFromTheLastLevel) {
  save({"v_pred", "ztsnr"});
  const auto model = pipeline::StableDiffusion::open(path());
  EXPECT_EQ(model.files().kind, "Stable Diffusion XL (v-prediction)");
  EXPECT_EQ(model.noise_process()->prediction(), Prediction::v);
  for (const char* name : {"ddim", "euler", "dpmpp-2m", "unipc"}) {
    const auto path = diffusion::find_sampler(name).steps(model.noise_process(), 10);
    EXPECT_EQ(path.steps.front().from.timestep, 999.0) << name;
  }
  EXPECT_EQ(model.noise_process()->level_at(1.0).alpha, 0.0);
}

// What is saved says in its own way what the file said.
TEST_F(MarkedCheckpoint, MergedFormsLoseNothing) {
  const io::Metadata metadata = {{"modelspec.prediction_type", "v"}, {"modelspec.title", "Tiny"}};
  save({"v_pred", "ztsnr"}, metadata);
  pipeline::LoadOptions low_memory;
  low_memory.low_memory = true;
  const auto model = pipeline::StableDiffusion::open(path(), low_memory);
  pipeline::merge_into_file(model, {}, folder_ / "merged.safetensors");
  const auto merged = io::SafetensorsFile::open(folder_ / "merged.safetensors");
  EXPECT_EQ(merged->metadata(), metadata);
  for (const char* marker : {"v_pred", "ztsnr"}) EXPECT_NE(merged->find(marker), nullptr) << marker;
  pipeline::merge_into_folder(model, {}, folder_ / "folder");
  for (const fs::path& saved : {folder_ / "merged.safetensors", folder_ / "folder"}) {
    const diffusion::ScheduleConfig config = schedule(saved);
    EXPECT_EQ(config.prediction, Prediction::v) << saved;
    EXPECT_TRUE(config.zero_terminal_snr) << saved;
    EXPECT_EQ(config.spacing, diffusion::Spacing::trailing) << saved;
  }
}

TEST_F(MarkedCheckpoint, TheUsersWordIsSavedWithTheModel) {
  save({});
  pipeline::LoadOptions options;
  options.files.prediction = Prediction::v;
  pipeline::merge_into_folder(pipeline::StableDiffusion::open(path(), options), {},
                              folder_ / "folder");
  EXPECT_EQ(schedule(folder_ / "folder").prediction, Prediction::v);
  options.files.prediction = Prediction::epsilon;
  EXPECT_EQ(schedule(folder_ / "folder", options).prediction, Prediction::epsilon);
}

TEST_F(MarkedCheckpoint, WhatIsNotKnownIsRefusedAndContradictionsAreLogged) {
  save({}, {{"modelspec.prediction_type", "flow"}});
  expect_error(ErrorCode::unsupported, "the model predicts \"flow\"", [&] { schedule(path()); });
  pipeline::LoadOptions options;
  options.files.prediction = Prediction::v;
  EXPECT_EQ(schedule(path(), options).prediction, Prediction::v);
  save({"v_pred"}, {{"modelspec.prediction_type", "epsilon"}});
  const LogCapture capture;
  EXPECT_EQ(schedule(path()).prediction, Prediction::v);
  EXPECT_NE(capture.warnings().find("taken for v_prediction"), std::string::npos);
}

}  // namespace
}  // namespace ringlet::formats
