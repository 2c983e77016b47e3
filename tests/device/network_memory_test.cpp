// What is on the device, and when: networks that rest, and blocks of the denoiser in host memory.
// On the simulated device bytes are exact, in blocks of 512.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/device/simulated_device.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

using pipeline::IdleNetworks;
using pipeline::NetworkRole;

constexpr std::int64_t kBlock = 512;

std::int64_t in_blocks(double bytes) {
  return (static_cast<std::int64_t>(bytes) + kBlock - 1) / kBlock * kBlock;
}

class OnTheDevice : public FineTuning {
 protected:
  OnTheDevice() { golden::write_folder(folder_ / "half", "sdxl", "fp16"); }

  static std::int64_t bytes() { return device::present() ? device::counters().current_bytes : 0; }

  pipeline::StableDiffusion open(pipeline::LoadOptions load, const char* model = "model") const {
    load.device = test_device();
    if (std::string(model) == "half") load.files.variant = "fp16";
    return pipeline::StableDiffusion::open(folder_ / model, load);
  }

  static pipeline::GenerateRequest request() {
    pipeline::GenerateRequest request;
    request.prompt = "a photo of a cat";
    request.seeds = {1, 2};
    request.steps = 2;
    request.size = {32, 32};
    request.sampler = diffusion::find_sampler("ddim");
    return request;
  }

  /// Sampling and decoding: the pictures, and the peak above what was there before.
  static std::pair<std::vector<io::Image>, std::int64_t> generate(
      const pipeline::TextToImageModel& model) {
    const std::int64_t before = bytes();
    if (device::present()) device::reset();
    auto pictures = pipeline::generate(model, request());
    const std::int64_t peak = device::present() ? device::counters().peak_bytes : 0;
    return {std::move(pictures), peak - before};
  }

  static bool same(const std::vector<io::Image>& a, const std::vector<io::Image>& b) {
    return std::ranges::equal(a, b, {}, &io::Image::pixels, &io::Image::pixels);
  }

  FineTuneOptions with_method(const std::string& method) const {
    FineTuneOptions o = options();
    o.learning = adapt::parse_method(method);
    o.samples.prompts = {};
    return o;
  }
};

// The order of training: pictures are encoded, captions are, and then the denoiser comes.
TEST_F(OnTheDevice, AfterCaptionsAreEncodedNothingIsThereButTheDenoiser) {
  if (!device::present()) GTEST_SKIP() << "a real device";
  const at::NoGradGuard no_grad;
  for (const char* name : {"model", "half"}) {
    SCOPED_TRACE(name);
    const std::int64_t start = bytes();
    const auto model = open({.for_training = true}, name);
    EXPECT_EQ(bytes(), start);  // nothing comes before it is used
    model.encode(at::zeros({1, 3, 32, 32}));
    EXPECT_EQ(bytes(), start);
    const pipeline::Conditions text = model.encode_prompts(std::array{std::string("a dog")}, 1);
    std::int64_t conditions = in_blocks(static_cast<double>(text.get("text").nbytes()));
    if (text.get("pooled").defined())
      conditions += in_blocks(static_cast<double>(text.get("pooled").nbytes()));
    EXPECT_EQ(bytes(), start + conditions);
    pipeline::Conditions whole = text;
    const PictureSize size = {32, 32};
    model.add_sizes(whole, std::array{pipeline::PictureFrame{size, 0, 0, size}});
    const std::int64_t before = bytes();
    const at::TensorOptions there(test_device());
    {
      const at::Tensor x = at::zeros({1, 4, 16, 16}, there.dtype(at::kFloat));
      model.predict(x, at::zeros({1}, there.dtype(at::kFloat)), whole);
    }
    const double denoiser = pipeline::weight_bytes(model, NetworkRole::denoiser);
    const auto tensors = static_cast<double>(model.networks().at("unet").index.tensors.size());
    EXPECT_GE(bytes() - before, static_cast<std::int64_t>(denoiser));
    EXPECT_LE(bytes() - before, in_blocks(denoiser + tensors * kBlock));
    // Pictures are decoded beside it.
    model.decode(at::zeros({1, 4, 16, 16}));
    EXPECT_LE(bytes() - before, in_blocks(denoiser + tensors * kBlock));
  }
}

TEST_F(OnTheDevice, ARunsStepsHoldNoTextEncoderAndNoAutoencoder) {
  if (!device::present()) GTEST_SKIP() << "a real device";
  FineTuneOptions o = with_method("lora(rank=2)");
  double denoiser = 0.0, coders = 0.0;
  {
    const auto model = open({.for_training = true});
    denoiser = pipeline::weight_bytes(model, NetworkRole::denoiser);
    coders = pipeline::weight_bytes(model, NetworkRole::text_encoder) +
             pipeline::weight_bytes(model, NetworkRole::autoencoder);
  }
  const std::int64_t start = bytes();
  std::int64_t in_step = 0, tensors = 0;
  FineTune fine_tune(o);
  tensors = fine_tune.plan().parameters;
  EXPECT_TRUE(fine_tune.run({.progress = {}, .step = [&](const StepResult&) {
                               in_step = bytes();
                               return true;
                             }}));
  // Values, gradients and two moments of each parameter; each tensor begins a block.
  const double learning = 4.0 * sizeof(float) * static_cast<double>(tensors);
  EXPECT_GE(in_step - start, static_cast<std::int64_t>(denoiser + learning));
  EXPECT_LE(static_cast<double>(in_step - start), denoiser + learning + 0.5 * coders)
      << denoiser << " " << learning << " " << coders;
}

TEST_F(OnTheDevice, WhatRestsBetweenPicturesChangesThePeakAndNoPicture) {
  const auto load = [](IdleNetworks idle) {
    pipeline::LoadOptions options;
    options.idle = idle;
    return options;
  };
  for (const char* name : {"model", "half"}) {
    SCOPED_TRACE(name);
    const auto stay = open(load(IdleNetworks::stay), name),
               leave = open(load(IdleNetworks::coders_leave), name),
               all = open(load(IdleNetworks::all_leave), name);
    const auto first = generate(stay), coders = generate(leave), alone = generate(all);
    EXPECT_TRUE(same(coders.first, first.first));
    EXPECT_TRUE(same(alone.first, first.first));
    EXPECT_TRUE(same(generate(all).first, first.first));  // and once more
    const auto again = generate(stay);
    EXPECT_TRUE(same(again.first, first.first));
    if (!device::present()) continue;
    const double text = pipeline::weight_bytes(stay, NetworkRole::text_encoder),
                 denoiser = pipeline::weight_bytes(stay, NetworkRole::denoiser);
    EXPECT_LE(coders.second, first.second - static_cast<std::int64_t>(text));
    EXPECT_LT(alone.second, coders.second);
    EXPECT_GE(alone.second, static_cast<std::int64_t>(denoiser));
    EXPECT_LT(device::counters().host_to_device_bytes, 1 << 16);  // of `again`: no weights
  }
}

// What a plan chooses tiles by.
TEST_F(OnTheDevice, TilesBoundTheAutoencodersPeak) {
  if (!device::present()) GTEST_SKIP() << "a real device counts nothing";
  const at::NoGradGuard no_grad;
  auto model = open({.idle = IdleNetworks::coders_leave});
  const PictureSize size = {256, 192};
  const double weights = pipeline::weight_bytes(model, NetworkRole::autoencoder);
  const auto peak_of = [&](const auto& code) {
    const std::int64_t before = bytes();
    device::reset();
    code();
    return static_cast<double>(device::counters().peak_bytes - before);
  };
  double before = 0.0;
  for (const std::int64_t side : {0, 96, 64, 32}) {
    SCOPED_TRACE(side);
    model.code_in_tiles(side);
    const double decoding = peak_of([&] {
      model.decode(at::zeros({1, 4, 96, 128}));
    }),
                 encoding = peak_of([&] {
                   model.encode(at::zeros({1, 3, 192, 256}));
                 });
    const double expected = weights + model.decoding_bytes(size);
    EXPECT_LE(decoding, 1.15 * expected);
    EXPECT_GE(decoding, 0.6 * expected);
    EXPECT_LE(encoding, 1.15 * (weights + model.encoding_bytes(size)));
    if (side > 0) EXPECT_LT(decoding, before);
    before = decoding;
  }
}

// Adapters of layers that rest are made where the layers are going to compute.
TEST_F(OnTheDevice, NetworksThatRestTakeAdaptersAndWords) {
  pipeline::LoadOptions load;
  load.idle = IdleNetworks::coders_leave;
  const at::NoGradGuard no_grad;
  const auto embedding = folder_ / "word.safetensors";
  io::save_tensors(embedding, {{"emb_params", golden::uniform("word", {2, 32})}});
  const auto text_of = [&](pipeline::StableDiffusion& model, bool used) {
    const std::array prompt = {std::string("a photo of word")};
    if (used) model.encode_prompts(prompt, 1);
    adapt::AdapterSet set = adapt::AdapterSet::create(
        adapt::parse_method("trm(rank=2)+lora(rank=2)"),
        adapt::select_targets(pipeline::adaptable(model), {.presets = {"text-encoder"}}),
        adapt::FactorTable(), Random(3));
    for (const auto& [name, tensor] : set.parameters())
      EXPECT_EQ(tensor.device(), model.options().device);
    for (const auto& [name, tensor] : set.parameters())
      tensor.add_(golden::uniform(name, tensor.sizes().vec()).to(tensor.device()), 0.3);
    set.attach();
    model.add_embeddings(embedding, "word");
    return model.encode_prompts(prompt, 1).get("text").cpu();
  };
  auto resting = open(load), used = open(load);
  auto cpu = pipeline::StableDiffusion::open(folder_ / "model");
  const at::Tensor want = text_of(cpu, false);
  EXPECT_LE((text_of(resting, false) - want).abs().max().item<double>(), 1e-4);
  EXPECT_LE((text_of(used, true) - want).abs().max().item<double>(), 1e-4);
}

TEST_F(OnTheDevice, OffloadedBlocksLearnTheSameNumbers) {
  for (const char* method : {"lora(rank=2)", "trm(rank=2)+tr(rank=2)", "oft(block=2)",
                             "lora(rank=2)+magnitude", "fourierft(n=20)"})
    for (const bool checkpointing : {false, true}) {
      SCOPED_TRACE(std::string(method) + (checkpointing ? ", checkpointing" : ""));
      FineTuneOptions o = with_method(method);
      o.batch_size = 2;
      o.dropout = {.input = 0.1, .rank = 0.0, .module = 0.2};
      o.gradient_checkpointing = checkpointing;
      FineTuneOptions offloaded = o;
      o.out = folder_ / (std::string(method) + (checkpointing ? "c" : "p"));
      offloaded.out = folder_ / (o.out.filename().string() + " offloaded");
      offloaded.load.offload_layers = 5;
      EXPECT_TRUE(run(o));
      EXPECT_TRUE(run(offloaded));
      expect_same_metrics(o, offloaded);
    }
}

// What is copied are the codes.
TEST_F(OnTheDevice, OffloadedBlocksKeepTheirStorage) {
  double wider = 0.0;
  for (const nn::WeightStorage storage :
       {nn::WeightStorage::bf16, nn::WeightStorage::int8, nn::WeightStorage::nf4}) {
    SCOPED_TRACE(nn::weight_storage_name(storage));
    FineTuneOptions o = with_method("trm(rank=2)+lora(rank=2)");
    o.load.storage = storage;
    FineTuneOptions offloaded = o;
    o.out = folder_ / nn::weight_storage_name(storage);
    offloaded.out = folder_ / (o.out.filename().string() + " offloaded");
    offloaded.load.offload_layers = 5;
    EXPECT_TRUE(run(o));
    EXPECT_TRUE(run(offloaded));
    expect_same_metrics(o, offloaded);
    const auto model = open({.storage = storage, .for_training = true});
    const nn::OffloadEffect effect = pipeline::offload_effect(model, 5);
    EXPECT_GT(effect.copied_bytes, 0.0);
    if (wider > 0.0) EXPECT_LT(effect.copied_bytes, 0.65 * wider);
    wider = effect.copied_bytes;
  }
}

TEST_F(OnTheDevice, OffloadedBlocksAreCopiedAheadAndTakeLess) {
  if (!device::present()) GTEST_SKIP() << "a real device counts nothing";
  struct Work {
    std::int64_t peak = 0, copies = 0;
  };
  int runs = 0;
  const auto work_with = [&](std::int64_t blocks) {
    FineTuneOptions o = with_method("lora(rank=2)");
    o.load.offload_layers = blocks;
    o.gradient_checkpointing = true;
    o.trainer.steps = 4;
    o.out = folder_ / ("offload" + std::to_string(runs++));
    Work last;
    EXPECT_TRUE(FineTune(o).run(
        {.progress = {}, .step = [&](const StepResult& report) {
           if (report.step == 4)
             last = {device::counters().peak_bytes, device::counters().host_to_device};
           device::reset();
           return true;
         }}));
    return last;
  };
  const auto model = open({.for_training = true});
  const std::int64_t all = pipeline::offloadable_blocks(model);
  EXPECT_GE(all, 8);
  const Work none = work_with(0);
  EXPECT_LE(none.copies, 2);
  for (const std::int64_t blocks : {std::int64_t{2}, std::int64_t{5}, all}) {
    SCOPED_TRACE(blocks);
    const nn::OffloadEffect effect = pipeline::offload_effect(model, blocks);
    const Work work = work_with(blocks);
    EXPECT_EQ(work.copies - none.copies, 2 * blocks - 4);
    EXPECT_GE(static_cast<double>(none.peak - work.peak),
              effect.saved_bytes - static_cast<double>(2 * kBlock * blocks));
    if (blocks > 2) EXPECT_GT(effect.saved_bytes, 0.0);
  }
  const double half = 0.5 * pipeline::offload_effect(model, all).saved_bytes;
  const std::int64_t fewest = pipeline::blocks_that_save(model, half);
  EXPECT_GE(pipeline::offload_effect(model, fewest).saved_bytes, half);
  EXPECT_LT(pipeline::offload_effect(model, fewest - 1).saved_bytes, half);
}

TEST_F(OnTheDevice, OffloadingIsChosenToFitAndMayChange) {
  const auto want = generate(open({})).first;
  const auto model = open({});
  for (const std::int64_t blocks : {3, 0, 100}) {
    pipeline::offload_denoiser(model, blocks);
    EXPECT_EQ(pipeline::offloaded_blocks(model),
              std::min(blocks, pipeline::offloadable_blocks(model)));
    EXPECT_TRUE(same(generate(model).first, want));
  }
  if (!device::present()) return;
  pipeline::LoadOptions automatic;
  automatic.offload_layers = std::nullopt;
  const auto fits = open(automatic);
  EXPECT_EQ(pipeline::offload_for(fits, 1 << 20), 0);
  const double denoiser = pipeline::weight_bytes(fits, NetworkRole::denoiser);
  device::limit_memory(bytes() + static_cast<std::int64_t>(0.8 * denoiser) + (1 << 20));
  const std::int64_t blocks = pipeline::offload_for(fits, 1 << 20);
  EXPECT_GT(blocks, 0);
  EXPECT_LT(blocks, pipeline::offloadable_blocks(fits));
  device::limit_memory(std::int64_t{24} << 30);
  EXPECT_TRUE(same(generate(fits).first, want));
}

TEST_F(OnTheDevice, ADenoiserThatLearnsStays) {
  FineTuneOptions o = with_method("lora(rank=2)");
  o.learning = AllWeights{};
  o.load.offload_layers = 3;
  try {
    run(o);
    ADD_FAILURE() << "it was offloaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
  }
}

}  // namespace
}  // namespace ringlet::train
