// How far a picture follows its control signal, where that needs no network.
#pragma once

#include "ringlet/data/control_signal.h"
#include "ringlet/train/text_to_image/control_validation.h"

namespace ringlet::service {

/// F1 of edges for canny and mIoU of colours for segmentation, where signals are computed from the
/// pictures; nothing for given signals.
train::ControlMetric control_metric(const data::ControlSettings& settings);

}  // namespace ringlet::service
