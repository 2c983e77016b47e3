// Networks in several threads. CI runs these under ThreadSanitizer as well.
#include <cstdint>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/nn/tensor_slots.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"
#include "tests/threads/together.h"

namespace ringlet {
namespace {

TEST(Threads, TensorSlotsOfSeveralNetworksAreChangedAtOnce) {
  together(3, [](int thread) {
    const at::Tensor tensor = at::full({16}, thread, at::kFloat);
    nn::TensorSlots slots;
    for (int i = 0; i < 20; ++i) {
      slots.set(tensor, &slots, at::ones({16}));
      EXPECT_EQ(tensor[3].item<float>(), static_cast<float>(thread + 1));
      slots.remove(tensor, &slots);
    }
    EXPECT_EQ(tensor[3].item<float>(), static_cast<float>(thread));
  });
}

TEST(Threads, OneModelMakesPicturesInSeveralThreads) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "model", "sd1");
  const auto model = pipeline::StableDiffusion::open(folder / "model");
  const auto sample = [&](int seed) {
    pipeline::GenerateRequest request;
    request.prompt = "a cat";
    request.seeds = {static_cast<std::uint64_t>(seed)};
    request.steps = 2;
    return pipeline::sample(model, request);
  };
  std::vector<at::Tensor> made(3);
  together(3, [&](int thread) { made[static_cast<std::size_t>(thread)] = sample(thread); });
  for (int thread = 0; thread < 3; ++thread)
    EXPECT_TRUE(at::equal(made[static_cast<std::size_t>(thread)], sample(thread)));
}

}  // namespace
}  // namespace ringlet
