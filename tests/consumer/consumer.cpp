// A program outside the source tree that uses the installed library: one picture from one prompt.
#include <cstdio>

#include "ringlet/core/error.h"
#include "ringlet/core/version.h"
#include "ringlet/io/image.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL PICTURE.png\n", argv[0]);
    return 2;
  }
  try {
    const auto model = ringlet::pipeline::StableDiffusion::open(argv[1]);
    ringlet::pipeline::GenerateRequest request;
    request.prompt = "a photo of a cat";
    request.steps = 2;
    request.sampler = model.defaults().sampler;
    const at::Tensor latents = ringlet::pipeline::sample(model, request);
    ringlet::io::write_png(argv[2], ringlet::pipeline::decode_images(model, latents).front());
    std::printf("ringlet %s: %s\n", ringlet::kVersion, argv[2]);
  } catch (const ringlet::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return ringlet::exit_status(error.code());
  }
}
