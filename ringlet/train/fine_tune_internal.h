// What the two halves of FineTune share: fine_tune_plan.cpp and fine_tune.cpp.
#pragma once

#include <string>
#include <vector>

#include "ringlet/train/fine_tune.h"

namespace ringlet::train {

inline constexpr const char* kClassFolder = "class_images";

/// Everything about the options that is wrong whatever the model. Throws Error(invalid_argument).
void check_options(const FineTuneOptions& options);

/// Names, sizes and captions of pictures: what a resumed run must find unchanged.
std::string fingerprint(const std::vector<data::Picture>& pictures);

}  // namespace ringlet::train
