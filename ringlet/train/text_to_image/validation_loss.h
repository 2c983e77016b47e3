// The loss on pictures that training does not see, at fixed noise levels and seeds.
#pragma once

#include <cstdint>
#include <optional>

#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/text_to_image/training_set.h"

namespace ringlet::train {

struct ValidationLossOptions {
  std::uint64_t seed = 0;
  std::int64_t clip_skip = 1;
  std::optional<double> guidance = {};  ///< as DiffusionLossOptions::guidance
};

/// The mean squared error of a model's predictions for `pictures`, at 0.2, 0.4, 0.6 and 0.8 of the
/// time from data to noise, as in kohya's trainer, with noise that depends on the seed and the
/// picture's number alone. Only the first crop of each picture counts, and no weight of training.
double validation_loss(const pipeline::TextToImageModel& model, const TrainingSet& pictures,
                       const ValidationLossOptions& options);

}  // namespace ringlet::train
