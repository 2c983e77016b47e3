// How well generated pictures follow their control signal: the protocol of OFT (Qiu et al. 2023),
// as published in its evaluation code.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ringlet/data/control_signal.h"
#include "ringlet/data/landmarks.h"

namespace ringlet::eval {

/// C2I: the Canny edges of two pictures of one size.
struct EdgeAgreement {
  double iou = 0.0;  ///< |A and B| / |A or B|
  double f1 = 0.0;   ///< 2 TP / (2 TP + FP + FN)
};

/// Edges of both pictures with the same thresholds. Two pictures without any edge agree: both
/// numbers are 1. Throws Error(mismatch) for different sizes.
EdgeAgreement edge_agreement(const io::Image& source, const io::Image& generated,
                             data::CannyThresholds thresholds = {});

/// S2I over a whole set, as semantic segmentation is evaluated: pixels are counted first, and
/// ratios taken of the sums.
class Confusion {
 public:
  /// `ignored` is a true label whose pixels count nowhere (255 in ADE20K).
  explicit Confusion(int classes, int ignored = 255);

  /// Pixels of one picture. Throws Error(mismatch) for different sizes and Error(invalid_argument)
  /// for a label that is not a class.
  void add(const data::LabelMap& truth, const data::LabelMap& found);

  /// The pixels of another set on top. Throws Error(mismatch) for other classes.
  Confusion& operator+=(const Confusion& other);

  /// How many pixels were counted.
  std::int64_t pixels() const;

  struct Scores {
    double mean_iou = 0.0;        ///< mIoU, over the classes that occur in truth or finding
    double mean_accuracy = 0.0;   ///< mAcc: mean share of each true class that was found
    double pixel_accuracy = 0.0;  ///< aAcc
  };
  /// Throws Error(invalid_argument) when no pixel was counted.
  Scores scores() const;

 private:
  std::int64_t& at(int truth, int found) {
    return counts_[static_cast<std::size_t>(truth * classes_ + found)];
  }

  int classes_;
  int ignored_;
  std::vector<std::int64_t> counts_;
};

/// L2I: mean distance in pixels of points to their true places. Throws Error(mismatch) for
/// different numbers of points and Error(invalid_argument) without any.
double landmark_error(std::span<const data::Point> truth, std::span<const data::Point> found);

}  // namespace ringlet::eval
