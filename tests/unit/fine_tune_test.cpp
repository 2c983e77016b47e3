// Whole runs on the tiny model.

#include <cmath>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/run_folder.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

TEST_F(FineTuning, ThePlanSaysWhatIsGoingToBe) {
  std::ofstream(folder_ / "pictures/b.txt") << "a red dog";
  FineTuneOptions o = options();
  o.trainer.steps = 12;
  o.trainer.gradient_accumulation = 2;
  o.batch_size = 3;
  o.repeats = 4;
  o.class_prompt = "a dog";
  o.class_count = 7;
  const FineTune run(o);
  const FineTunePlan plan = run.plan();
  EXPECT_EQ(plan.model_kind, "Stable Diffusion 1");
  EXPECT_EQ(plan.pictures, 3u);
  EXPECT_EQ(plan.captions, 1u);
  EXPECT_EQ(plan.class_pictures, 0u);
  EXPECT_EQ(plan.class_to_make, 7u);
  ASSERT_EQ(plan.examples.size(), 2u);
  EXPECT_EQ(plan.examples[0].first, "a photo of a dog");
  EXPECT_GE(plan.examples[0].second, 2 + 5);
  EXPECT_EQ(plan.examples[1].first, "a red dog");
  EXPECT_EQ(plan.resolution, (PictureSize{16, 16}));
  // Each picture has a bucket: four repeats are two batches of three.
  EXPECT_DOUBLE_EQ(plan.epochs, 12.0 * 2.0 * 3.0 / (3.0 * 6.0));
  EXPECT_EQ(plan.first_step, 0);
  EXPECT_GT(plan.layers, 10u);
  EXPECT_GT(plan.parameters, 0);
  EXPECT_GT(plan.expected_bytes, 0u);
  EXPECT_EQ(run.result(), folder_ / "run/adapter.safetensors");
  EXPECT_FALSE(fs::exists(o.out));  // a plan writes nothing
}

TEST_F(FineTuning, MakesAnAdapterThatOpens) {
  FineTuneOptions o = options();
  o.metadata = adapt::MetadataLevel::full;
  EXPECT_TRUE(run(o));
  EXPECT_EQ(metrics(o).size(), 3u);
  EXPECT_TRUE(fs::exists(o.out / "report.html"));
  EXPECT_TRUE(fs::exists(o.out / "samples/step-00000000.png"));
  EXPECT_TRUE(fs::exists(o.out / "samples/step-00000003.png"));
  EXPECT_TRUE(fs::exists(o.out / "checkpoints/step-00000003.safetensors"));
  const auto model = pipeline::StableDiffusion::open(o.model);
  const auto loaded = adapt::load_adapter(o.out / "adapter.safetensors",
                                          {{"unet", &model.networks().at("unet").index}});
  EXPECT_EQ(adapt::method_text(loaded.set.method()), FineTune(options("other")).plan().method);
  const Json training = parse_json(loaded.info.training, "training");
  EXPECT_EQ(training.at("steps"), 3);
  EXPECT_EQ(training.at("seed"), 5);
  EXPECT_EQ(loaded.info.extra.at("modelspec.title"), "run");
  EXPECT_EQ(loaded.info.base_hash, training.at("model"));
  EXPECT_EQ(loaded.info.base_hash.size(), 64u);
}

// From crops to what is written and told.
TEST_F(FineTuning, PicturesNeedNotBeSquare) {
  FineTuneOptions o = options();
  o.crop.size = {24, 16};
  o.samples.prompts = {"a dog"};
  EXPECT_EQ(FineTune(o).plan().resolution, (PictureSize{24, 16}));
  EXPECT_TRUE(run(o));
  const io::Image sample = io::read_image(o.out / "samples/step-00000003.png");
  EXPECT_EQ(sample.size(), (PictureSize{24, 16}));
  const Json training = parse_json(
      io::SafetensorsFile::open(o.out / "adapter.safetensors")->metadata().at("ringlet.training"),
      "training");
  EXPECT_EQ(training.at("resolution"), "24x16");
  EXPECT_EQ(io::SafetensorsFile::open(o.out / "adapter.safetensors")
                ->metadata()
                .at("modelspec.resolution"),
            "24x16");
  EXPECT_NE(file_content(o.out / "report.html").find("24x16"), std::string::npos);
}

// Every loss and the result's bytes, whichever step the run was stopped at.
TEST_F(FineTuning, ResumeIsBitExact) {
  const FineTuneOptions whole = all_options("whole/run");
  EXPECT_TRUE(run(whole));
  const std::string expected = file_content(whole.out / "adapter.safetensors");
  for (const std::int64_t k : {1, 3, 4}) {
    SCOPED_TRACE(k);
    FineTuneOptions o = all_options("parts" + std::to_string(k) + "/run");
    EXPECT_FALSE(run(o, k));
    EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
    o.resume = true;
    EXPECT_EQ(FineTune(o).plan().first_step, k);
    EXPECT_TRUE(run(o));
    expect_same_metrics(o, whole);
    EXPECT_TRUE(file_content(o.out / "adapter.safetensors") == expected);
    EXPECT_EQ(file_content(o.out / "samples/step-00000005.png"),
              file_content(whole.out / "samples/step-00000005.png"));
  }
  // Cold: the same settings with another seed.
  FineTuneOptions other = all_options("other/run");
  other.seed = 6;
  EXPECT_TRUE(run(other));
  EXPECT_NE(file_content(other.out / "adapter.safetensors"), expected);
}

TEST_F(FineTuning, TheResultIsTheMovingAverage) {
  FineTuneOptions o = options();
  o.trainer.ema_decay = 0.9;
  run(o);
  const TrainState state = CheckpointFolder::load(o.out / "checkpoints/step-00000003.safetensors");
  const auto result = io::load_tensors(o.out / "adapter.safetensors");
  EXPECT_GT(result.size(), 10u);
  std::size_t different = 0;
  for (const auto& [name, tensor] : result) {
    EXPECT_TRUE(same_bits(tensor, state.tensors.at("average." + name))) << name;
    different += same_bits(tensor, state.tensors.at("parameter." + name)) ? 0 : 1;
  }
  EXPECT_GT(different, result.size() / 2);
}

TEST_F(FineTuning, ResumingAFinishedRunChangesNothing) {
  FineTuneOptions o = options();
  run(o);
  const std::string adapter = file_content(o.out / "adapter.safetensors");
  const std::string rows = file_content(o.out / "metrics.csv");
  fs::remove(o.out / "adapter.safetensors");  // as after a kill between checkpoint and result
  fs::remove(o.out / "samples/step-00000003.png");
  o.resume = true;
  EXPECT_TRUE(run(o, 1));
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"), adapter);
  EXPECT_EQ(file_content(o.out / "metrics.csv"), rows);
  EXPECT_TRUE(fs::exists(o.out / "samples/step-00000003.png"));
}

TEST_F(FineTuning, MoreStepsMayFollow) {
  FineTuneOptions longer = options("whole/run");
  longer.trainer.steps = 5;
  run(longer);
  FineTuneOptions o = options("parts/run");
  run(o);
  o.resume = true;
  o.trainer.steps = 5;
  run(o);
  expect_same_metrics(o, longer);
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
            file_content(longer.out / "adapter.safetensors"));
}

TEST_F(FineTuning, SamplesThatAnInterruptionPreventedAreMade) {
  FineTuneOptions o = options();
  o.observe_every = 2;
  o.trainer.checkpoint_every = 1;
  run(o, 2);
  EXPECT_FALSE(fs::exists(o.out / "samples/step-00000002.png"));
  o.resume = true;
  run(o);
  FineTuneOptions whole = options("whole");
  whole.observe_every = 2;
  run(whole);
  for (const char* name : {"step-00000000.png", "step-00000002.png", "step-00000003.png"})
    EXPECT_EQ(file_content(o.out / "samples" / name), file_content(whole.out / "samples" / name))
        << name;
}

// Pictures of another text encoder layer than the one that learns would say nothing about it.
TEST_F(FineTuning, ClipSkipIsThatOfSamplesAndClassPicturesToo) {
  const auto pixels = [&](std::int64_t clip_skip, const char* name) {
    FineTuneOptions o = options("skip" + std::to_string(clip_skip));
    if (!fs::exists(o.out)) {
      o.loss.clip_skip = clip_skip;
      o.trainer.steps = 1;
      o.samples.steps = 2;
      o.class_prompt = "a photo of a pet";
      o.class_count = 1;
      run(o);
    }
    return io::read_image(o.out / name).pixels;
  };
  for (const char* name : {"samples/step-00000000.png", "class_images/class-00001.png"})
    EXPECT_NE(pixels(1, name), pixels(2, name)) << name;
}

// --- what a resumed run must find unchanged ---

TEST_F(FineTuning, AnEarlierRunIsNotOverwritten) {
  const FineTuneOptions o = options();
  run(o, 1);
  const std::string before = file_content(o.out / "metrics.csv");
  expect_error(ErrorCode::invalid_argument, "`resume`", [&] { FineTune{o}; });
  EXPECT_EQ(file_content(o.out / "metrics.csv"), before);
}

TEST_F(FineTuning, OtherSettingsAreRefusedByNameBeforeAnythingIsMade) {
  const FineTuneOptions first = options();
  run(first, 1);
  struct Change {
    const char* words;
    std::function<void(FineTuneOptions&)> make;
  };
  const std::vector<Change> changes = {
      {"seed was 5, now 6", [](auto& o) { o.seed = 6; }},
      {"method was", [](auto& o) { o.learning = adapt::parse_method("lora(rank=2)"); }},
      {"parameters was", [](auto& o) { o.targets.presets = {"all"}; }},
      {"pictures was", [](auto& o) { o.instance_prompt = "a photo of a cat"; }},
      {"pictures was", [](auto& o) { o.repeats = 2; }},
      {"class prompt was \"\", now \"a dog\"", [](auto& o) { o.class_prompt = "a dog"; }},
      {"resolution was 16, now 32", [](auto& o) { o.crop.size = PictureSize::square(32); }},
      {"crop was", [](auto& o) { o.crop.random = true; }},
      {"flip was false, now true", [](auto& o) { o.crop.flip = true; }},
      {"batch size was 1, now 2", [](auto& o) { o.batch_size = 2; }},
      {"gradient accumulation was", [](auto& o) { o.trainer.gradient_accumulation = 2; }},
      {"learning rate was", [](auto& o) { o.trainer.learning_rate.peak = 1e-3; }},
      {"learning rate factors was",
       [](auto& o) {
         o.trainer.rate_factors = {{"*", 0.5}};
       }},
      {"warm-up was", [](auto& o) { o.trainer.learning_rate.warmup = 1; }},
      {"decay was", [](auto& o) { o.trainer.learning_rate.decay = Decay::linear; }},
      {"clip norm was", [](auto& o) { o.trainer.clip_norm = 2.0; }},
      {"betas was", [](auto& o) { o.trainer.optimizer = adamw({.beta2 = 0.99}); }},
      {"weight decay was", [](auto& o) { o.trainer.optimizer = adamw({.weight_decay = 0.0}); }},
      {"moving average was", [](auto& o) { o.trainer.ema_decay = 0.5; }},
      {"gamma was", [](auto& o) { o.loss.rule.min_snr_gamma = 5.0; }},
      {"noise offset was", [](auto& o) { o.loss.noise_offset = 0.1; }},
      {"dropout was", [](auto& o) { o.loss.caption_dropout = 0.1; }},
      {"clip skip was 1, now 2", [](auto& o) { o.loss.clip_skip = 2; }},
      {"text encoder was", [](auto& o) { o.train_text_encoder = true; }},
      {"identity penalty was", [](auto& o) { o.identity_penalty = 0.1; }},
      {"orthogonal penalty was", [](auto& o) { o.orthogonal_penalty = 0.1; }},
      {"base storage was \"as-stored\", now \"nf4\"",
       [](auto& o) { o.load.storage = nn::WeightStorage::nf4; }},
      {"precision was \"fp32\", now \"bf16\"", [](auto& o) { o.load.precision = at::kBFloat16; }},
      {"prediction was", [](auto& o) { o.load.files.prediction = diffusion::Prediction::v; }},
  };
  const std::size_t entries = entry_count(first.out);
  for (const Change& change : changes) {
    SCOPED_TRACE(change.words);
    FineTuneOptions o = options();
    o.resume = true;
    change.make(o);
    expect_error(ErrorCode::mismatch, change.words, [&] { FineTune{o}; });
  }
  EXPECT_EQ(entry_count(first.out), entries);
}

TEST_F(FineTuning, OtherPicturesAreRefused) {
  FineTuneOptions o = options();
  run(o, 1);
  o.resume = true;
  write_pictures(folder_ / "pictures", 4);
  expect_error(ErrorCode::mismatch, "pictures was", [&] { FineTune{o}; });
}

TEST_F(FineTuning, AnotherModelIsRefused) {
  FineTuneOptions o = options();
  run(o, 1);
  o.resume = true;
  const fs::path weights = folder_ / "model/unet/diffusion_pytorch_model.safetensors";
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : io::load_tensors(weights)) tensors[name] = tensor.clone();
  tensors.at("conv_in.bias")[0] += 0.5;
  io::save_tensors(weights, tensors);
  const std::string before = file_content(o.out / "metrics.csv");
  expect_error(ErrorCode::mismatch, "model was", [&] { run(o); });
  EXPECT_EQ(file_content(o.out / "metrics.csv"), before);
}

TEST_F(FineTuning, TheSeedOfARunIsFound) {
  FineTuneOptions o = options();
  o.seed = 18446744073709551615u;
  EXPECT_FALSE(recorded_seed(o.out));
  run(o, 1);
  EXPECT_EQ(recorded_seed(o.out), o.seed);
}

TEST_F(FineTuning, AllWeightsMakeAModelFolderThatOpens) {
  FineTuneOptions o = options();
  o.learning = AllWeights{};
  o.trainer.learning_rate.peak = 1e-3;
  o.load.files.prediction = diffusion::Prediction::v;
  EXPECT_EQ(FineTune(o).plan().layers, 0u);
  EXPECT_TRUE(run(o));
  const auto before = pipeline::StableDiffusion::open(o.model);
  const auto after = pipeline::StableDiffusion::open(o.out / "model");
  EXPECT_EQ(before.noise_process()->prediction(), diffusion::Prediction::epsilon);
  EXPECT_EQ(after.noise_process()->prediction(),
            diffusion::Prediction::v);  // what it was trained for
  std::size_t changed = 0;
  for (const auto& [component, network] : before.networks())
    for (const auto& [name, tensor] : network.index.tensors) {
      const bool same = at::equal(tensor, after.networks().at(component).index.tensors.at(name));
      EXPECT_TRUE(same || component == "unet") << component << "." << name;
      changed += same ? 0 : 1;
    }
  EXPECT_GT(changed, before.networks().at("unet").index.tensors.size() / 2);
}

TEST_F(FineTuning, AllWeightsResumeBitExactlyToo) {
  const auto with = [&](const std::string& out) {
    FineTuneOptions o = options(out);
    o.learning = AllWeights{};
    o.train_text_encoder = true;
    o.trainer.ema_decay = 0.9;
    return o;
  };
  const FineTuneOptions whole = with("whole/run");
  run(whole);
  FineTuneOptions o = with("parts/run");
  run(o, 2);
  o.resume = true;
  run(o);
  expect_same_metrics(o, whole);
  for (const char* file :
       {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"})
    EXPECT_TRUE(file_content(o.out / "model" / file) == file_content(whole.out / "model" / file))
        << file;
}

TEST_F(FineTuning, PenaltiesChangeTheLossButNotAtTheStart) {
  const FineTuneOptions plain = options("plain");
  run(plain);
  for (const bool identity : {true, false}) {
    FineTuneOptions o = options(identity ? "identity" : "orthogonal");
    (identity ? o.identity_penalty : o.orthogonal_penalty) = 10.0;
    run(o);
    EXPECT_NEAR(metrics(o)[0].loss, metrics(plain)[0].loss, 1e-5);
    EXPECT_GT(std::abs(metrics(o)[2].loss - metrics(plain)[2].loss), 1e-5);
  }
}

TEST_F(FineTuning, FailingSamplePicturesDoNotEndTheRun) {
  FineTuneOptions o = options();
  o.samples.prompts = {"\xFF"};
  const LogCapture log;
  EXPECT_TRUE(run(o));
  EXPECT_NE(log.warnings().find("no sample pictures"), std::string::npos) << log.warnings();
  EXPECT_TRUE(fs::exists(o.out / "adapter.safetensors"));
}

TEST_F(FineTuning, AStopWhilePicturesAreEncodedIsAnError) {
  const FineTuneOptions o = options();
  expect_error(ErrorCode::cancelled, "stopped",
               [&] { FineTune(o).run({.progress = [](auto&&...) { return false; }, .step = {}}); });
  EXPECT_TRUE(run(o));  // nothing stands in the way of the next try
}

// The name goes into the adapter's metadata at the very end of a run.
TEST_F(FineTuning, AnyFolderNameWillDo) {
  for (const std::string name : {"run/", "caf\xE9", "a\nb"}) {
    FineTuneOptions o = options(name);
    o.trainer.steps = 1;
    o.metadata = adapt::MetadataLevel::full;
    EXPECT_TRUE(run(o)) << name;
    const auto file = io::SafetensorsFile::open(o.out / "adapter.safetensors");
    EXPECT_NE(file->metadata().at("modelspec.title"), "") << name;
  }
}

FineTuneOptions& all_weights(FineTuneOptions& options) {
  options.learning = AllWeights{};
  return options;
}

TEST_F(FineTuning, WhatCannotBeIsRefusedBeforeTheModelIsOpened) {
  struct Case {
    const char* words;
    std::function<void(FineTuneOptions&)> make;
  };
  const double nan = std::nan("");
  const std::vector<Case> cases = {
      {"instance_images: ", [](auto& o) { o.instance_images.clear(); }},
      {"out: ", [](auto& o) { o.out.clear(); }},
      {"steps: ", [](auto& o) { o.trainer.steps = 0; }},
      {"batch_size: ", [](auto& o) { o.batch_size = -1; }},
      {"gradient_accumulation: ", [](auto& o) { o.trainer.gradient_accumulation = 0; }},
      {"repeats: ", [](auto& o) { o.repeats = 0; }},
      {"learning_rate: ", [](auto& o) { o.trainer.learning_rate.peak = 0.0; }},
      {"learning_rate: ", [=](auto& o) { o.trainer.learning_rate.peak = nan; }},
      {"learning_rate: ", [](auto& o) { o.trainer.learning_rate.peak = INFINITY; }},
      {"class_images: ", [](auto& o) { o.class_images = "x"; }},
      {"class_count: ",
       [](auto& o) {
         o.class_prompt = "x";
         o.class_count = 0;
       }},
      {"penalty: ", [](auto& o) { o.identity_penalty = -1.0; }},
      {"penalty: ", [=](auto& o) { o.orthogonal_penalty = nan; }},
      {"penalty: ",
       [](auto& o) {
         o.learning = AllWeights{};
         o.identity_penalty = 1.0;
       }},
      {"base_storage: `method=full` trains the weights themselves",
       [](auto& o) { all_weights(o).load.storage = nn::WeightStorage::nf4; }},
      {"budget: ", [](auto& o) { all_weights(o).budget = "10k"; }},
      {"targets: ", [](auto& o) { all_weights(o).targets.presets = {"attention"}; }},
      {"include: ", [](auto& o) { all_weights(o).targets.include = {"*"}; }},
      {"exclude: ", [](auto& o) { all_weights(o).targets.exclude = {"*"}; }},
      {"factors: ",
       [](auto& o) {
         all_weights(o).factors[8] = {2, 2, 2};
       }},
      {"dropout: ", [](auto& o) { all_weights(o).dropout.input = 0.1; }},
      {"rank_dropout: ", [](auto& o) { all_weights(o).dropout.rank = 0.1; }},
      {"module_dropout: ", [](auto& o) { all_weights(o).dropout.module = 0.1; }},
      {"no caption", [](auto& o) { o.instance_prompt.clear(); }},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.words);
    FineTuneOptions o = options();
    o.model = folder_ / "is not there";
    each.make(o);
    expect_error(ErrorCode::invalid_argument, each.words, [&] { FineTune{o}; });
  }
}

}  // namespace
}  // namespace ringlet::train
