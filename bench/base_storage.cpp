// What the storage of a frozen U-Net changes: ringlet's side of bench/base_storage.py.
//
//     ringlet_bench_base_storage MODEL_FOLDER STORAGE [SIDE] [REPEATS]
//
// Prints one JSON object: bytes of the U-Net's weights, peak resident memory, seconds of a forward
// pass (batch 1), and the relative error of its predictions beside those of fp32 over prompts and
// noise levels, |e - e_fp32| / |e_fp32|.

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ringlet/core/json.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/option.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

namespace {

using namespace ringlet;
using Clock = std::chrono::steady_clock;

constexpr std::array kPrompts = {"a photo of a red robot", "a blue circle on a white background"};
constexpr std::array kTimesteps = {900.0, 500.0, 100.0};

pipeline::StableDiffusion open(const std::filesystem::path& folder, nn::WeightStorage storage) {
  pipeline::LoadOptions load;
  load.storage = storage;
  return pipeline::StableDiffusion::open(folder, load);
}

/// A prediction for every prompt and level, [n, channels, side, side].
at::Tensor predictions(const pipeline::StableDiffusion& model, std::int64_t side,
                       std::vector<double>* seconds) {
  std::vector<at::Tensor> all;
  at::manual_seed(1);
  const std::int64_t channels = model.unet().config().in_channels;
  for (const char* prompt : kPrompts)
    for (const double timestep : kTimesteps) {
      const at::Tensor x = at::randn({1, channels, side, side});
      const std::vector<std::string> prompts = {prompt};
      pipeline::Conditions conditions = model.encode_prompts(prompts, 1);
      model.add_sizes(conditions, std::vector{pipeline::PictureFrame{}});
      const auto start = Clock::now();
      all.push_back(model.predict(x, at::full({1}, timestep), conditions));
      if (seconds != nullptr)
        seconds->push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  return at::cat(all);
}

Json measure(const std::filesystem::path& folder, nn::WeightStorage storage, std::int64_t side,
             int repeats) {
  const at::NoGradGuard no_grad;
  std::vector<double> seconds;
  std::uint64_t bytes = 0, peak = 0;
  at::Tensor here;
  {
    const auto model = open(folder, storage);
    bytes = model.networks().at("unet").index.bytes();
    here = predictions(model, side, nullptr);
    for (int i = 0; i < repeats; ++i) predictions(model, side, &seconds);
    peak = peak_resident_bytes();
  }
  const at::Tensor fp32 = predictions(open(folder, nn::WeightStorage::fp32), side, nullptr);
  std::vector<double> errors;
  for (std::int64_t i = 0; i < fp32.size(0); ++i)
    errors.push_back((here[i] - fp32[i]).norm().item<double>() / fp32[i].norm().item<double>());
  return {{"storage", nn::weight_storage_name(storage)},
          {"weight_bytes", bytes},
          {"peak_bytes", peak},
          {"seconds", seconds},
          {"relative_errors", errors}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL_FOLDER STORAGE [SIDE] [REPEATS]\n", argv[0]);
    return 2;
  }
  try {
    nn::WeightStorage storage = nn::WeightStorage::as_stored;
    choice("STORAGE", storage, nn::kWeightStorageNames).read({argv[2]});
    const auto number = [&](int index, int fallback) {
      return argc > index ? std::atoi(argv[index]) : fallback;
    };
    std::printf("%s\n", measure(argv[1], storage, number(3, 16), number(4, 3)).dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
