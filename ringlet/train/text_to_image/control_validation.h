// What a control network has learnt, on pictures that were held out. Control can come late and
// suddenly ("sudden convergence", Zhang et al. 2023), so that the loss alone does not show it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/io/image.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/train/report.h"
#include "ringlet/train/score.h"
#include "ringlet/train/text_to_image/sample_sheet.h"
#include "ringlet/train/text_to_image/training_set.h"

namespace ringlet::train {

/// How far a picture follows the one that its control signal was made from.
struct ControlMetric {
  std::string name;  ///< "F1 of edges", …
  std::function<double(const io::Image& source, const io::Image& generated)> measure;
  explicit operator bool() const { return static_cast<bool>(measure); }
};

struct ControlScore {
  std::int64_t step = 0;
  double loss = 0.0;            ///< denoising loss with each picture's own signal
  double exchanged_loss = 0.0;  ///< with the next picture's signal: equal while control is ignored
  double metric = 0.0;          ///< mean over the pictures; NaN without a metric
};

class ControlValidation {
 public:
  /// `pictures` as encode_pictures made them, with control; their `sources` in the same order.
  ControlValidation(const pipeline::TextToImageModel& model,
                    const pipeline::ControlNetwork& control, TrainingSet pictures,
                    std::vector<io::Image> sources, ControlMetric metric, SampleOptions samples);

  /// Denoising losses at fixed noise and four fixed timesteps, and the metric of pictures from
  /// fixed seeds. Those are put into `sheet`: a row per picture, with source, signal and result.
  ControlScore measure(std::int64_t step, io::Image& sheet) const;

 private:
  ControlScore measured(std::int64_t step, io::Image& sheet) const;
  double loss(std::size_t shift) const;

  const pipeline::TextToImageModel& model_;
  const pipeline::ControlNetwork& control_;
  TrainingSet pictures_;
  std::vector<io::Image> sources_;
  ControlMetric metric_;
  SampleOptions samples_;
};

/// As a run keeps them: loss, exchanged_loss, metric, which are the columns of control.csv.
std::vector<Score> scores_of(const ControlScore& score);

/// The scores as charts of a report, and the last of them among its first numbers. `metric` is the
/// metric's name, or empty.
void add_scores(Report& report, const std::vector<ScoreRow>& rows, const std::string& metric);

}  // namespace ringlet::train
