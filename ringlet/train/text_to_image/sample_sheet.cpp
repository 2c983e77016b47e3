#include "ringlet/train/text_to_image/sample_sheet.h"

#include <utility>

#include "ringlet/pipeline/generation.h"

namespace ringlet::train {

io::Image sample_sheet(const pipeline::TextToImageModel& model, const SampleOptions& options,
                       const std::function<bool()>& proceed) {
  std::vector<io::Image> pictures;
  for (const std::string& prompt : options.prompts) {
    pipeline::GenerateRequest request;
    request.prompt = prompt;
    request.steps = options.steps;
    request.guidance = options.guidance;
    request.size = options.size;
    request.clip_skip = options.clip_skip;
    request.seeds.clear();
    for (std::int64_t i = 0; i < options.images; ++i)
      request.seeds.push_back(options.seed + static_cast<std::uint64_t>(i));
    for (io::Image& picture : pipeline::generate(
             model, request, [&](const diffusion::SamplerStep&) { return !proceed || proceed(); }))
      pictures.push_back(std::move(picture));
  }
  return io::image_grid(pictures, options.images);
}

}  // namespace ringlet::train
