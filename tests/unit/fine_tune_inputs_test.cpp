// What a run says of its pictures, captions and prompts before it starts; and runs with pictures to
// measure on, or with weights in bf16.
#include <fstream>

#include <ATen/Functions.h>

#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/score_file.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

class FineTuneInputs : public FineTuning {
 protected:
  void write(const std::string& name, const std::string& content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  /// A bitmap of 16 x 16 pixels, which has the same size whatever it shows.
  void bitmap(const std::string& name, char value) const {
    using namespace std::literals;
    write(name, "BM\x36\x03\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\x18\0"s +
                    std::string(24, '\0') + std::string(16 * 16 * 3, value));
  }
  static std::size_t count_of(const std::string& text, const std::string& words) {
    std::size_t count = 0;
    for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1))
      ++count;
    return count;
  }
  static std::string long_text() {
    std::string text;
    for (int i = 0; i < 100; ++i) text += "dog ";
    return text + "cat";
  }
};

TEST(Resolution, IsAWholeNumberOfPixels) {
  TextToImageOptions options;
  OptionList list;
  describe(list, options);
  const auto& resolution = std::get<WrittenValue>(list.at("resolution").target);
  EXPECT_EQ(resolution.placeholder, "N");
  resolution.read({"48"});
  EXPECT_EQ(options.crop.size, PictureSize::square(48));
  expect_error(ErrorCode::invalid_argument, "resolution: must not be negative",
               [&] { resolution.read({"-5"}); });
  expect_error(ErrorCode::invalid_argument, "resolution: \"4x\" is not a whole number",
               [&] { resolution.read({"4x"}); });
}

TEST_F(FineTuneInputs, NotesOfBothFoldersAreInThePlan) {
  write("pictures/x.heic", "x");
  write("pictures/a.txt", "a dog\non a second line");
  write_pictures(folder_ / "class", 5);
  write("class/a.txt", "caf\xE9, which nobody reads");
  write("class/c.tif", "x");
  FineTuneOptions o = options();
  o.class_prompt = "a pet";
  o.class_images = folder_ / "class";
  o.class_count = 3;
  const FineTunePlan plan = FineTune(o).plan();
  ASSERT_EQ(plan.notes.size(), 2u);
  EXPECT_EQ(plan.notes[0].kind, data::NoteKind::unread_picture);
  EXPECT_EQ(plan.notes[1].kind, data::NoteKind::longer_caption);
  EXPECT_EQ(plan.class_found, 5u);
  EXPECT_EQ(plan.class_pictures, 3u);
  EXPECT_EQ(plan.class_to_make, 0u);
  ASSERT_EQ(plan.class_notes.size(), 2u);
  EXPECT_EQ(plan.class_notes[0].kind, data::NoteKind::unread_picture);
  EXPECT_EQ(plan.class_notes[1].kind, data::NoteKind::unused_caption);
}

TEST_F(FineTuneInputs, WhatIsTooLongIsSaidOnceAndInThePlan) {
  write("pictures/a.txt", long_text());
  write("pictures/b.txt", long_text());
  FineTuneOptions o = options();
  o.train_text_encoder = true;
  o.samples.prompts = {"a dog", "another " + long_text()};
  FineTune run(o);
  const auto& too_long = run.plan().too_long;
  ASSERT_EQ(too_long.size(), 2u);
  EXPECT_EQ(too_long[0].where, folder_ / "pictures/a.txt");
  EXPECT_EQ(too_long[1].where, "sample_prompt");
  EXPECT_TRUE(too_long[1].is_field);
  EXPECT_GT(too_long[0].text.tokens, too_long[0].text.limit);
  EXPECT_TRUE(too_long[0].text.cut.ends_with("dog cat")) << too_long[0].text.cut;
  const LogCapture log;
  EXPECT_TRUE(run.run({}));
  EXPECT_EQ(log.warnings(), "");
}

TEST_F(FineTuneInputs, AModelSaysOfAPromptOnceThatItIsTooLong) {
  const auto model = pipeline::StableDiffusion::open(folder_ / "model");
  const LogCapture log;
  for (int i = 0; i < 2; ++i) {
    pipeline::GenerateRequest request;
    request.prompt = long_text();
    request.negative_prompt = "no " + long_text();
    request.size = {16, 16};
    request.steps = 1;
    pipeline::sample(model, request);
  }
  EXPECT_EQ(count_of(log.warnings(), "too long"), 2u) << log.warnings();
}

TEST_F(FineTuneInputs, AllDamagedPicturesAreNamedBeforeAnythingIsMade) {
  write_pictures(folder_ / "class", 2);
  FineTuneOptions o = options();
  o.class_prompt = "a pet";
  o.class_images = folder_ / "class";
  o.class_count = 5;
  fs::resize_file(folder_ / "pictures/c.png", 99);
  expect_error(ErrorCode::bad_format, "pictures/c.png: the image is truncated",
               [&] { FineTune{o}; });
  write("pictures/a.png", "<html>not found</html>");
  fs::resize_file(folder_ / "class/b.png", 99);
  for (const char* words : {"3 of 5 pictures cannot be used", "a.png: this is not a PNG",
                            "pictures/c.png: the image", "class/b.png: the image is truncated"})
    expect_error(ErrorCode::unsupported, words, [&] { FineTune{o}; });
  EXPECT_EQ(entry_count(folder_ / "class"), 2u);
  EXPECT_FALSE(fs::exists(o.out));
}

TEST_F(FineTuneInputs, TheCheckCanBeStopped) {
  expect_error(ErrorCode::cancelled, "stopped", [&] {
    FineTune(options(), {.progress = [](auto&&...) { return false; }, .step = {}});
  });
}

// Sizes alone would not tell.
TEST_F(FineTuneInputs, ExchangedPicturesAreNoticed) {
  bitmap("pictures/d.bmp", 'x');
  bitmap("class/a.bmp", 'x');
  FineTuneOptions o = options();
  o.class_prompt = "a pet";
  o.class_images = folder_ / "class";
  o.class_count = 1;
  run(o, 1);
  o.resume = true;
  bitmap("pictures/d.bmp", 'y');
  expect_error(ErrorCode::mismatch, "other settings: pictures' contents was", [&] { FineTune{o}; });
  bitmap("pictures/d.bmp", 'x');
  bitmap("class/a.bmp", 'y');
  expect_error(ErrorCode::mismatch, "other settings: class pictures' contents was",
               [&] { run(o); });
  bitmap("class/a.bmp", 'x');
  EXPECT_TRUE(run(o));
}

TEST_F(FineTuneInputs, CheckpointsThatDoNotKnowContentsResume) {
  FineTuneOptions o = options();
  run(o, 1);
  TrainState state = CheckpointFolder::load(o.out / "checkpoints/step-00000001.safetensors");
  for (const char* later : {"pictures' contents", "class pictures' contents"})
    EXPECT_EQ(state.settings.erase(later), 1u);
  CheckpointFolder(o.out / "checkpoints", 1).save(state);
  o.resume = true;
  const LogCapture log;
  EXPECT_TRUE(run(o));
  EXPECT_NE(log.warnings().find("does not record whether these are unchanged: pictures' contents"),
            std::string::npos)
      << log.warnings();
}

TEST_F(FineTuning, WhatTheModelCannotDoIsRefused) {
  struct Case {
    const char* words;
    std::function<void(FineTuneOptions&)> make;
  };
  const std::vector<Case> cases = {
      {"17 is not a multiple", [](auto& o) { o.crop.size = PictureSize::square(17); }},
      {"-16 is not a multiple", [](auto& o) { o.crop.size = PictureSize::square(-16); }},
      {"clip_skip: ", [](auto& o) { o.loss.clip_skip = 3; }},
      {"clip_skip: ", [](auto& o) { o.loss.clip_skip = 0; }},
      {"targets: ", [](auto& o) { o.targets.presets = {"atention"}; }},
      {"no_such_layer", [](auto& o) { o.targets.include = {"*no_such_layer*"}; }},
      {"UTF-8", [](auto& o) { o.instance_prompt = "\xFF"; }},
      {"splits no dimension of 7",
       [](auto& o) {
         o.factors[7] = {1, 1, 7};
       }},
      {"factors belong to tensor rings and trains",
       [](auto& o) {
         o.learning = adapt::parse_method("lora(rank=2)");
         o.factors[8] = {2, 2, 2};
       }},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.words);
    FineTuneOptions o = options();
    each.make(o);
    expect_error(ErrorCode::invalid_argument, each.words, [&] { FineTune{o}; });
    EXPECT_FALSE(fs::exists(o.out));
  }
}

// What is measured on other pictures, and in what weights learn.

TEST_F(FineTuneInputs, PicturesOfTheirOwnMeasureTheLoss) {
  write_pictures(folder_ / "validation", 2);
  FineTuneOptions o = options();
  o.validation_images = folder_ / "validation";
  o.observe_every = 1;
  o.samples.prompts = {"a dog"};
  o.best.name = "validation loss";
  ASSERT_TRUE(run(o));
  const ScoreFile scores(o.out / "scores.csv", 100);
  EXPECT_EQ(scores.columns(), std::vector<std::string>{"validation loss"});
  ASSERT_EQ(scores.rows().size(), 4u);
  EXPECT_NE(scores.rows().front().values, scores.rows().back().values);
  EXPECT_TRUE(std::filesystem::exists(o.out / "best.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(o.out / "samples/step-00000003.png"));
  // Fixed noise: the network without training has one loss, whatever is trained.
  FineTuneOptions other = options("other");
  other.validation_images = o.validation_images;
  other.seed = 77;
  other.trainer.steps = 1;
  ASSERT_TRUE(run(other));
  const ScoreFile again(other.out / "scores.csv", 100);
  EXPECT_EQ(again.rows().front().values, scores.rows().front().values);
  other.out = folder_ / "third";
  other.instance_prompt = "";
  expect_error(ErrorCode::invalid_argument, "the picture has no caption", [&] { run(other); });
}

TEST_F(FineTuneInputs, AllWeightsLearnInBf16AndResumeBitExactly) {
  const auto bf16 = [&](const std::string& out) {
    FineTuneOptions o = options(out);
    o.learning = AllWeights{};
    o.load.precision = at::kBFloat16;
    o.trained_precision = at::kBFloat16;
    o.trainer.learning_rate.peak = 1e-5;
    o.trainer.ema_decay = 0.5;
    o.trainer.steps = 4;
    o.save_precision = at::kBFloat16;
    return o;
  };
  const FineTuneOptions whole = bf16("whole");
  ASSERT_TRUE(run(whole));
  FineTuneOptions parts = bf16("parts");
  EXPECT_FALSE(run(parts, 2));
  parts.resume = true;
  EXPECT_TRUE(run(parts));
  expect_same_metrics(whole, parts);
  const std::string unet = "model/unet/diffusion_pytorch_model.safetensors";
  EXPECT_TRUE(file_content(whole.out / unet) == file_content(parts.out / unet));
  const auto base = io::load_tensors(folder_ / unet);
  bool changed = false;
  for (const auto& [name, tensor] : io::load_tensors(whole.out / unet))
    changed = changed || !at::equal(tensor, base.at(name).to(at::kBFloat16));
  EXPECT_TRUE(changed);
  FineTuneOptions wrong = bf16("wrong");
  wrong.load.precision = at::kFloat;
  expect_error(ErrorCode::invalid_argument, "trained_precision: weights in bf16",
               [&] { FineTune{wrong}; });
  wrong.learning = adapt::parse_method("lora");
  expect_error(ErrorCode::invalid_argument, "trained_precision: adapters learn in fp32",
               [&] { FineTune{wrong}; });
}

}  // namespace
}  // namespace ringlet::train
