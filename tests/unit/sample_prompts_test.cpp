// Files of sample prompts, and what an adapter's file tells of a training.
#include "ringlet/train/text_to_image/sample_prompts.h"

#include <fstream>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/io/image.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/train/run_metadata.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

TEST(SamplePrompts, ALineHasItsOwnSettings) {
  const SamplePrompt all = parse_sample_prompt(
      "a photo of sks dog, x--y - z --n blurry, low --W 768 --h 512  --d 18446744073709551615 "
      "--s 30 --l 7.5 --g 3 --ss k_euler_a\r",
      "p:1");
  EXPECT_EQ(all.text, "a photo of sks dog, x--y - z");
  EXPECT_EQ(all.negative, "blurry, low");
  EXPECT_EQ(all.width, 768);
  EXPECT_EQ(all.height, 512);
  EXPECT_EQ(all.seed, 18446744073709551615u);
  EXPECT_EQ(all.steps, 30);
  EXPECT_EQ(all.guidance, 7.5);
  EXPECT_EQ(all.told_guidance, 3.0);
  EXPECT_EQ(all.sampler.name(), "euler-ancestral");
  EXPECT_EQ(parse_sample_prompt("a dog --ss dpmsolver++", "").sampler.name(), "dpmpp-2m");
  const SamplePrompt plain = parse_sample_prompt("  a dog ", "");
  EXPECT_EQ(plain.text, "a dog");
  EXPECT_FALSE(plain.negative || plain.width || plain.seed || plain.steps || plain.guidance);
  EXPECT_EQ(parse_sample_prompt("--n bad", "").text, "");
}

TEST(SamplePrompts, WhatIsWrongIsToldWithItsLine) {
  const TemporaryFolder folder;
  const fs::path file = folder / "prompts.txt";
  const auto expect_refused = [&](const std::string& line, const std::string& words) {
    std::ofstream(file) << "# a comment\n\na cat\n" << line << "\n";
    expect_error(ErrorCode::bad_format, "prompts.txt:4: " + words,
                 [&] { read_sample_prompts(file); });
  };
  expect_refused("a dog --sss euler", "--sss is not known\n  did you mean --ss?");
  expect_refused("a dog --ar 16:9", "--ar is not known");
  expect_refused("a dog --w", "--w has no value");
  expect_refused("a dog --w wide", "--w \"wide\": a whole number above 0 is needed");
  expect_refused("a dog --w 0", "--w \"0\"");
  expect_refused("a dog --h 5.5", "--h \"5.5\"");
  expect_refused("a dog --d -1", "--d \"-1\"");
  expect_refused("a dog --s 0", "--s \"0\"");
  expect_refused("a dog --l nan", "--l \"nan\": a number from 0 to 1000");
  expect_refused("a dog --l 1001", "--l \"1001\"");
  expect_refused("a dog --ss eulr", "--ss \"eulr\"");
  expect_refused("a dog --cn a.png", "--cn is not supported");
  std::ofstream(file) << "# nothing\n\n";
  expect_error(ErrorCode::bad_format, "holds no prompt", [&] { read_sample_prompts(file); });
  expect_error(ErrorCode::not_found, "nope", [&] { read_sample_prompts(folder / "nope"); });
}

class SamplePromptRuns : public FineTuning {};

// Two rows of two sizes, each as the file says; what differs shows in the pictures.
TEST_F(SamplePromptRuns, TheSheetHasARowPerLine) {
  FineTuneOptions o = options();
  o.trainer.steps = 1;
  o.samples.prompts_file = folder_ / "prompts.txt";
  std::ofstream(o.samples.prompts_file) << "a dog --w 25 --h 16 --s 2 --ss euler --d 3\n"
                                        << "# smaller\na cat --w 16 --h 8 --n a dog --l 4\n";
  EXPECT_TRUE(run(o));
  const io::Image sheet = io::read_image(o.out / "samples/step-00000001.png");
  EXPECT_EQ(sheet.size(), (PictureSize{24, 32}));  // 25 is rounded down, as there
  EXPECT_NE(file_content(o.out / "report.html").find("a cat"), std::string::npos);

  pipeline::GenerateRequest request;
  const auto model = pipeline::open_text_to_image_model(o.model);
  request.prompt = "a dog";
  request.size = {24, 16};
  request.steps = 2;
  request.guidance = model->defaults().guidance;
  request.sampler = diffusion::find_sampler("euler");
  request.seeds = {3};
  SampleOptions samples = o.samples;
  samples.from_file = {read_sample_prompts(o.samples.prompts_file).front()};
  EXPECT_EQ(sample_sheet(*model, samples).pixels,
            pipeline::generate(*model, request).front().pixels);
}

TEST_F(SamplePromptRuns, WhatTheModelCannotDoIsKnownBeforeTheRun) {
  FineTuneOptions o = options();
  o.samples.prompts_file = folder_ / "prompts.txt";
  std::ofstream(o.samples.prompts_file) << "a dog\na dog --g 3\n";
  expect_error(ErrorCode::invalid_argument, "prompts.txt:2: --g is for models",
               [&] { FineTune refused(o); });
  std::ofstream(o.samples.prompts_file) << "a dog --w 100000\n";
  expect_error(ErrorCode::invalid_argument, "prompts.txt:1: width", [&] { FineTune refused(o); });
  EXPECT_FALSE(fs::exists(o.out));
}

class AdapterPrivacy : public FineTuning {
 protected:
  io::Metadata told(adapt::MetadataLevel level) const {
    FineTuneOptions o = options("secretfolder");
    o.instance_prompt = "a photo of secretword";
    o.class_prompt = "a photo of secretclass";
    o.class_count = 1;
    o.samples.prompts = {"a secretsample"};
    o.trainer.steps = 1;
    o.metadata = level;
    EXPECT_TRUE(run(o));
    const std::string bytes = file_content(o.out / "adapter.safetensors");
    EXPECT_EQ(bytes.find("secret") != std::string::npos, level == adapt::MetadataLevel::full);
    EXPECT_EQ(bytes.find("pictures") != std::string::npos, level == adapt::MetadataLevel::full);
    const auto metadata = io::SafetensorsFile::open(o.out / "adapter.safetensors")->metadata();
    // Whatever it tells, it can be loaded.
    const auto model = pipeline::open_text_to_image_model(o.model);
    adapt::load_adapter(o.out / "adapter.safetensors",
                        {{"unet", &model->networks().at("unet").index}});
    fs::remove_all(o.out);
    return metadata;
  }
};

TEST_F(AdapterPrivacy, CaptionsAndNamesAreInFullAlone) {
  const io::Metadata none = told(adapt::MetadataLevel::none);
  EXPECT_EQ(none.at("ringlet.training"), "");
  EXPECT_EQ(none.at("ringlet.base_hash"), "");
  EXPECT_FALSE(none.contains("modelspec.resolution"));

  const io::Metadata minimum = told(adapt::MetadataLevel::minimum);
  EXPECT_EQ(minimum.at("ringlet.base_hash").size(), 64u);
  EXPECT_NE(minimum.at("ringlet.base_kind"), "");
  EXPECT_EQ(minimum.at("modelspec.resolution"), "16x16");
  EXPECT_FALSE(minimum.contains("modelspec.title"));
  const Json training = parse_json(minimum.at("ringlet.training"), "training");
  EXPECT_EQ(training.at("steps"), 1);
  EXPECT_EQ(training.at("optimizer"), "adamw");
  EXPECT_TRUE(training.contains("method"));

  const io::Metadata full = told(adapt::MetadataLevel::full);
  EXPECT_EQ(full.at("modelspec.title"), "secretfolder");
  const Json folders = parse_json(full.at("ss_dataset_dirs"), "folders");
  EXPECT_EQ(folders.at("pictures").at("img_count"), 3);
  const Json tags = parse_json(full.at("ss_tag_frequency"), "tags");
  EXPECT_EQ(tags.at("pictures").at("a photo of secretword"), 3);
}

// What other programs recognise the base by stays; what they show of the data does not.
TEST(RunMetadata, TheBaseIsToldByTheMinimum) {
  adapt::AdapterFileInfo info;
  info.extra = {{"ss_base_model_version", "sdxl_base_v1-0"},
                {"ss_v2", "False"},
                {"ss_network_dim", "4"},
                {"ss_tag_frequency", "{}"},
                {"ss_output_name", "me"},
                {"modelspec.architecture", "a/lora"},
                {"modelspec.title", "me"}};
  info.training = R"j({"steps":3,"method":"lora(rank=4)","class prompt":"me","a b":["me"]})j";
  adapt::AdapterFileInfo kept = info;
  keep_metadata(kept, adapt::MetadataLevel::minimum);
  EXPECT_EQ(kept.extra, (io::Metadata{{"ss_base_model_version", "sdxl_base_v1-0"},
                                      {"ss_v2", "False"},
                                      {"ss_network_dim", "4"},
                                      {"modelspec.architecture", "a/lora"}}));
  EXPECT_EQ(kept.training, R"j({"method":"lora(rank=4)","steps":3})j");
  kept = info;
  keep_metadata(kept, adapt::MetadataLevel::full);
  EXPECT_EQ(kept.extra, info.extra);
  EXPECT_EQ(kept.training, info.training);
}

}  // namespace
}  // namespace ringlet::train
