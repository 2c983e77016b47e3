#include "ringlet/train/text_to_image/validation_loss.h"

#include <array>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include "ringlet/diffusion/noise.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"

namespace ringlet::train {

double validation_loss(const pipeline::TextToImageModel& model, const TrainingSet& pictures,
                       const ValidationLossOptions& options) {
  constexpr std::array kShares = {0.2, 0.4, 0.6, 0.8};
  const at::NoGradGuard no_grad;
  double sum = 0.0;
  for (std::size_t i = 0; i < pictures.pictures.size(); ++i) {
    const EncodedPicture& picture = pictures.pictures[i];
    const EncodedCrop& crop = picture.crops.front();
    const at::Tensor noise = diffusion::seeded_noise(
        {options.seed + i}, "validation loss", crop.mean.sizes().vec(), crop.mean.device())(0)[0];
    NoisyBatch batch;
    for (const double share : kShares)
      batch.levels.push_back(model.noise_process()->level_at(share));
    const std::vector<at::Tensor> latents(kShares.size(), crop.mean), same(kShares.size(), noise);
    batch.latents = at::stack(latents);
    batch.noise = at::stack(same);
    const std::array frame = {pipeline::PictureFrame{picture.size, crop.left, crop.top,
                                                     model.picture_size(crop.mean.sizes())}};
    pipeline::Conditions row =
        model.conditions(std::array{picture.caption}, frame, options.clip_skip);
    model.add_guidance(row, options.guidance.value_or(kTrainingGuidance));
    batch.conditions = row.repeated(static_cast<std::int64_t>(kShares.size()));
    sum += denoising_errors(model, batch).mean().item<double>();
  }
  return sum / static_cast<double>(pictures.pictures.size());
}

}  // namespace ringlet::train
