// Learning rates of parts: which parameters learn faster or slower than the others.
#pragma once

#include <vector>

#include "ringlet/train/trainable.h"
#include "ringlet/train/trainer.h"

namespace ringlet::train {

/// The parameters with their factors on the rate, in this order: RateFactors; part_rates, which
/// replace them by a peak of their own; LoRA+ (Hayou et al. 2024), which multiplies those of
/// residuals' "up", the matrix B of LoRA that starts at zero. Throws Error(invalid_argument) for a
/// pattern that matches none of them, a number that is not finite and 0 or above, and LoRA+ where
/// there is no such matrix.
std::vector<Trainable> with_rates(std::vector<Trainable> parameters, const TrainerOptions& options);

}  // namespace ringlet::train
