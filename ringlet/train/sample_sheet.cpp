#include "ringlet/train/sample_sheet.h"

namespace ringlet::train {

io::Image sample_sheet(const pipeline::StableDiffusion& model, const SampleOptions& options,
                       const std::function<bool()>& go_on) {
  std::vector<io::Image> pictures;
  for (const std::string& prompt : options.prompts) {
    pipeline::GenerateRequest request;
    request.prompt = prompt;
    request.steps = options.steps;
    request.guidance.scale = options.guidance;
    request.size = options.size;
    request.clip_skip = options.clip_skip;
    request.seeds.clear();
    for (std::int64_t i = 0; i < options.images; ++i)
      request.seeds.push_back(options.seed + static_cast<std::uint64_t>(i));
    const at::Tensor latents =
        model.sample(request, [&](const diffusion::StepReport&) { return !go_on || go_on(); });
    // One at a time: the autoencoder needs more memory for a picture than a training step may.
    for (const at::Tensor& latent : latents.split(1))
      pictures.push_back(std::move(model.decode(latent).front()));
  }
  return io::image_grid(pictures, options.images);
}

}  // namespace ringlet::train
