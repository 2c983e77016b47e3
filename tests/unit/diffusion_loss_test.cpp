#include "ringlet/train/text_to_image/diffusion_loss.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

using golden::uniform;

/// The tiny models, opened once each.
const pipeline::StableDiffusion& model_of(const std::string& which) {
  static std::map<std::string, std::unique_ptr<pipeline::StableDiffusion>> models;
  static const TemporaryFolder folder;
  auto& model = models[which];
  if (!model) {
    golden::write_folder(folder / which, which);
    model = std::make_unique<pipeline::StableDiffusion>(pipeline::StableDiffusion::open(
        folder / which, {.files = {}, .device = test_device(), .trainable = {}}));
  }
  return *model;
}

diffusion::Schedule schedule_of(const pipeline::StableDiffusion& model) {
  return diffusion::Schedule(
      diffusion::ScheduleConfig::from_json(model.files().scheduler, "scheduler"));
}

EncodedPicture picture(const std::string& name, const std::string& caption, int crops = 1) {
  EncodedPicture out{{}, caption, {32, 48}};
  for (int i = 0; i < crops; ++i)
    out.crops.push_back({uniform(name + std::to_string(i), {4, 8, 8}),
                         0.1 * uniform("d" + name + std::to_string(i), {4, 8, 8}).abs(), i, 0});
  return out;
}

/// Three pictures; the last comes twice in an epoch.
TrainingSet three(int crops = 1) {
  return {{picture("one", "a dog", crops), picture("two", "a cat", crops),
           picture("three", "a red cat", crops)},
          {0, 1, 2, 2}};
}

double loss_of(const TrainingSet& set, const DiffusionLossOptions& options, std::int64_t n,
               const TrainingSet& prior = {}, const std::string& model = "sd1") {
  const at::NoGradGuard no_grad;
  return DiffusionLoss(model_of(model), set, prior, options)(n).item<double>();
}

TEST(DiffusionLoss, IsAFunctionOfTheSeedAndTheMicroBatch) {
  const DiffusionLossOptions options{
      .seed = 4, .batch_size = 2, .noise_offset = 0.1, .caption_dropout = 0.3};
  const at::NoGradGuard no_grad;
  const DiffusionLoss loss(model_of("sd1"), three(3), three(2), options);
  std::map<std::int64_t, double> first;
  for (const std::int64_t n : {0, 1, 2, 3, 9}) first[n] = loss(n).item<double>();
  // In another order, again, and from another object.
  for (const std::int64_t n : {9, 2, 2, 0, 3, 1}) EXPECT_EQ(loss(n).item<double>(), first[n]) << n;
  EXPECT_EQ(loss_of(three(3), options, 9, three(2)), first[9]);
  for (const std::int64_t n : {1, 2, 3, 9}) EXPECT_NE(first[n], first[0]);
  DiffusionLossOptions other = options;
  other.seed = 5;
  EXPECT_NE(loss_of(three(3), other, 9, three(2)), first[9]);
}

// With one picture the loss of a micro-batch says which picture it was.
TEST(DiffusionLoss, EveryEpochShowsEveryPictureInAnotherOrder) {
  const DiffusionLossOptions options{.seed = 4};
  const TrainingSet all = three();
  std::vector<std::vector<std::size_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 6; ++epoch) {
    std::vector<std::size_t> shown;
    for (std::int64_t n = 4 * epoch; n < 4 * epoch + 4; ++n) {
      const double loss = loss_of(all, options, n);
      for (std::size_t i = 0; i < 3; ++i)
        if (loss_of({{all.pictures[i]}, {0}}, options, n) == loss) shown.push_back(i);
    }
    epochs.push_back(shown);
    std::ranges::sort(shown);
    EXPECT_EQ(shown, all.order) << epoch;
  }
  std::ranges::sort(epochs);
  EXPECT_GT(std::unique(epochs.begin(), epochs.end()) - epochs.begin(), 2);
}

// The same from the documented streams, row by row.
TEST(DiffusionLoss, IsTheMeanErrorOfTheDrawnNoise) {
  const auto& model = model_of("sd1");
  constexpr std::uint64_t kSeed = 11;
  constexpr double kOffset = 0.3;
  const TrainingSet set{{picture("one", "a dog")}, {0}};
  const EncodedCrop& crop = set.pictures[0].crops[0];
  const std::vector<std::string> captions = {"a dog"};
  const at::NoGradGuard no_grad;
  const at::Tensor text = model.encode_prompts(captions, 1).get("text");
  model.networks().at("unet").memory->enter();  // called directly
  const auto error_of = [&](std::uint64_t n, std::uint64_t row) {
    const auto normal = [&](const char* stream, const nn::Shape& shape) {
      at::Tensor out = at::empty(shape, at::kFloat);
      Random(kSeed)
          .stream(stream, n, row)
          .fill_normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
      return out.to(test_device());
    };
    const at::Tensor latents = crop.mean + crop.deviation * normal("posterior", {4, 8, 8});
    // One number per channel, the same at each place.
    const at::Tensor noise =
        normal("noise", {4, 8, 8}) + kOffset * normal("noise offset", {4, 1, 1});
    const auto timestep =
        static_cast<std::int64_t>(Random(kSeed).stream("timestep", n, row).uniform_int(1000));
    const auto level = schedule_of(model).level(timestep);
    const at::Tensor noisy = level.alpha * latents + level.sigma * noise;
    const at::Tensor said = model.unet().forward(
        noisy.unsqueeze(0), at::full({1}, static_cast<double>(timestep)).to(test_device()), text);
    return (said[0] - noise).square().mean().item<double>();
  };
  for (const std::int64_t n : {0, 1, 5}) {
    double sum = 0.0;
    for (std::int64_t rows = 1; rows <= 3; ++rows) {
      sum += error_of(static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(rows - 1));
      const double expected = sum / static_cast<double>(rows);
      EXPECT_NEAR(loss_of(set, {.seed = kSeed, .batch_size = rows, .noise_offset = kOffset}, n),
                  expected, 1e-5 * expected);
    }
  }
}

// A U-Net under another process: levels, timesteps and the target are the process's.
TEST(DiffusionLoss, RectifiedFlowLearnsTheVelocity) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "flow", "sd1");
  const Json scheduler = {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}};
  golden::write_json(folder / "flow/scheduler/scheduler_config.json", scheduler);
  const auto model = pipeline::StableDiffusion::open(
      folder / "flow", {.files = {}, .device = test_device(), .trainable = {}});
  EXPECT_EQ(model.noise_process()->name(), "rectified flow");
  const TrainingSet set{{picture("one", "a dog")}, {0}};
  const EncodedCrop& crop = set.pictures[0].crops[0];
  const at::NoGradGuard no_grad;
  const auto normal = [](const char* stream) {
    at::Tensor out = at::empty({4, 8, 8}, at::kFloat);
    Random(4)
        .stream(stream, 2, 0)
        .fill_normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
    return out.to(test_device());
  };
  const at::Tensor latents = crop.mean + crop.deviation * normal("posterior");
  const at::Tensor noise = normal("noise");
  const double time = 1.0 / (1.0 + std::exp(-Random(4).stream("timestep", 2, 0).normal()));
  const double sigma = 3.0 * time / (1.0 + 2.0 * time);
  const std::vector<std::string> captions = {"a dog"};
  const at::Tensor text = model.encode_prompts(captions, 1).get("text");
  model.networks().at("unet").memory->enter();  // called directly
  const at::Tensor said =
      model.unet().forward(((1.0 - sigma) * latents + sigma * noise).unsqueeze(0),
                           at::full({1}, 1000.0 * sigma).to(test_device()), text);
  const double expected = (said[0] - (noise - latents)).square().mean().item<double>();
  EXPECT_NEAR(DiffusionLoss(model, set, {}, {.seed = 4})(2).item<double>(), expected,
              1e-5 * expected);
}

TEST(DiffusionLoss, TheClassLossIsAddedWithItsWeight) {
  const TrainingSet prior{{picture("p", "a pet"), picture("q", "a pet")}, {0, 1}};
  DiffusionLossOptions options{.seed = 2, .batch_size = 2};
  const double without = loss_of(three(), options, 3);
  std::map<double, double> with;
  for (const double weight : {0.0, 1.0, 2.5}) {
    options.prior_weight = weight;
    with[weight] = loss_of(three(), options, 3, prior);
  }
  EXPECT_NEAR(with[0.0], without, 1e-5 * without);  // the instance rows are the same
  const double class_loss = with[1.0] - with[0.0];
  EXPECT_GT(class_loss, 0.01);
  EXPECT_NEAR(with[2.5], with[0.0] + 2.5 * class_loss, 1e-5 * with[2.5]);
}

TEST(DiffusionLoss, DroppedCaptionsAreEmptyOnes) {
  const TrainingSet said{{picture("one", "a dog")}, {0}}, empty{{picture("one", "")}, {0}};
  int dropped = 0;
  constexpr int kDraws = 60;
  for (std::int64_t n = 0; n < kDraws; ++n) {
    const double with = loss_of(said, {.seed = 9}, n), without = loss_of(empty, {.seed = 9}, n);
    ASSERT_NE(with, without);
    const double half = loss_of(said, {.seed = 9, .caption_dropout = 0.5}, n);
    EXPECT_TRUE(half == with || half == without);
    dropped += half == without ? 1 : 0;
    EXPECT_EQ(loss_of(said, {.seed = 9, .caption_dropout = 1.0}, n), without);
  }
  EXPECT_GT(dropped, kDraws / 4);
  EXPECT_LT(dropped, 3 * kDraws / 4);
}

TEST(DiffusionLoss, EveryCropIsDrawn) {
  const TrainingSet all{{picture("one", "a dog", 3)}, {0}};
  std::array<int, 3> drawn{};
  for (std::int64_t n = 0; n < 30; ++n) {
    const double loss = loss_of(all, {.seed = 1}, n);
    for (std::size_t i = 0; i < 3; ++i) {
      TrainingSet one = all;
      one.pictures[0].crops = {all.pictures[0].crops[i]};
      drawn[i] += loss_of(one, {.seed = 1}, n) == loss ? 1 : 0;
    }
  }
  EXPECT_EQ(drawn[0] + drawn[1] + drawn[2], 30);
  for (const int count : drawn) EXPECT_GT(count, 2);
}

TEST(DiffusionLoss, TextEncodersThatLearnGiveTheSameLoss) {
  for (const char* model : {"sd1", "sdxl"}) {
    const double kept = loss_of(three(), {.seed = 2, .batch_size = 2}, 1, {}, model);
    const double computed =
        loss_of(three(), {.seed = 2, .batch_size = 2, .train_text = true}, 1, {}, model);
    EXPECT_NEAR(kept, computed, 1e-5 * kept);
  }
}

TEST(DiffusionLoss, CropsNeedNotBeSquare) {
  // The same numbers in another shape: XL is told of it.
  const auto loss = [](const nn::Shape& shape, PictureSize size) {
    EncodedPicture wide{{}, "a dog", size};
    wide.crops.push_back({uniform("wide", shape), 0.1 * uniform("d", shape).abs()});
    return loss_of({{wide}, {0}}, {.seed = 2}, 1, {}, "sdxl");
  };
  const double wide = loss({4, 8, 16}, {32, 48}), tall = loss({4, 16, 8}, {32, 48});
  EXPECT_TRUE(std::isfinite(wide));
  EXPECT_NE(wide, tall);
}

TEST(DiffusionLoss, XlIsToldSizesAndPlaces) {
  const auto changed = [](const auto& change) {
    TrainingSet set{{picture("one", "a dog")}, {0}};
    change(set.pictures[0]);
    return loss_of(set, {.seed = 2}, 1, {}, "sdxl");
  };
  const double plain = changed([](EncodedPicture&) {});
  EXPECT_EQ(plain, changed([](EncodedPicture&) {}));
  EXPECT_NE(plain, changed([](EncodedPicture& p) { p.size.width = 640; }));
  EXPECT_NE(plain, changed([](EncodedPicture& p) { p.size.height = 640; }));
  EXPECT_NE(plain, changed([](EncodedPicture& p) { p.crops[0].left = 200; }));
  EXPECT_NE(plain, changed([](EncodedPicture& p) { p.crops[0].top = 200; }));
}

// --- min-SNR ---

class MinSnr : public testing::TestWithParam<const char*> {};

TEST_P(MinSnr, WeightsAreThePapers) {
  const auto& model = model_of(GetParam());
  const bool v = model.noise_process()->prediction() == diffusion::Prediction::v;
  EXPECT_EQ(v, std::string(GetParam()) == "sd2");
  NoisyBatch batch;
  for (const std::int64_t timestep : {0, 40, 333, 700, 999})
    batch.levels.push_back(schedule_of(model).level(timestep));
  const auto rows = static_cast<std::int64_t>(batch.levels.size());
  batch.latents = uniform("latents", {rows, 4, 8, 8});
  batch.noise = uniform("noise", {rows, 4, 8, 8});
  batch.conditions.set("text", uniform("text", {rows, 7, 64}));
  const at::NoGradGuard no_grad;
  const at::Tensor plain = denoising_errors(model, batch);
  for (const double gamma : {1.0, 5.0}) {
    const at::Tensor weighted = denoising_errors(model, batch, {.min_snr_gamma = gamma});
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto& level = batch.levels[static_cast<std::size_t>(row)];
      const double snr = level.alpha * level.alpha / (level.sigma * level.sigma);
      const double weight = std::min(snr, gamma) / (v ? snr + 1.0 : snr);
      const double expected = weight * plain[row].item<double>();
      EXPECT_NEAR(weighted[row].item<double>(), expected, 1e-5 * expected) << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, MinSnr, testing::Values("sd1", "sd2"),
                         [](const auto& entry) { return std::string(entry.param); });

// --- gradients ---

// Checkpointing of the whole U-Net, adapters with dropout and a learning text encoder included.
TEST(DiffusionLoss, CheckpointingGivesTheSameGradients) {
  const auto& model = model_of("sd1");
  adapt::AdapterSet set = adapt::AdapterSet::create(
      adapt::parse_method("trm(rank=2)+lora(rank=2)"),
      adapt::select_targets(pipeline::adaptable(model), {.presets = {"all", "text-encoder"}}),
      adapt::FactorTable(), Random(1));
  {
    const at::NoGradGuard no_grad;  // up is zero at the start, and so are down's gradients
    for (const auto& [name, tensor] : set.parameters())
      tensor.add_(uniform(name, tensor.sizes().vec()), 0.1);
  }
  set.attach();
  set.begin_step({.input = 0.3, .rank = 0.3}, Random(3), 1);
  const DiffusionLoss loss(model, three(), {}, {.seed = 2, .batch_size = 2, .train_text = true});
  const auto gradients = [&](bool checkpointing) {
    const nn::GradientCheckpointing on(checkpointing);
    for (const auto& [name, tensor] : set.parameters()) tensor.mutable_grad().reset();
    loss(1).backward();
    std::map<std::string, at::Tensor> out;
    for (const auto& [name, tensor] : set.parameters()) out[name] = tensor.grad().clone();
    return out;
  };
  const auto plain = gradients(false), again = gradients(true);
  double largest = 0.0;
  for (const auto& entry : plain)
    largest = std::max(largest, entry.second.abs().max().item<double>());
  for (const auto& [name, gradient] : plain) {
    // Some are nothing but rounding: a norm takes the constant of its channel away again.
    const double size = gradient.abs().max().item<double>();
    EXPECT_LE((again.at(name) - gradient).abs().max().item<double>(), 1e-5 * size + 1e-7 * largest)
        << name;
  }
}

}  // namespace
}  // namespace ringlet::train
