#include "ringlet/train/text_to_image/control_validation.h"

#include <array>
#include <limits>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include "ringlet/diffusion/noise.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/image_tensor.h"
#include "ringlet/train/score_file.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"

namespace ringlet::train {

ControlValidation::ControlValidation(const pipeline::TextToImageModel& model,
                                     const pipeline::ControlNetwork& control, TrainingSet pictures,
                                     std::vector<io::Image> sources, ControlMetric metric,
                                     SampleOptions samples)
    : model_(model),
      control_(control),
      pictures_(std::move(pictures)),
      sources_(std::move(sources)),
      metric_(std::move(metric)),
      samples_(std::move(samples)) {}

double ControlValidation::loss(std::size_t shift) const {
  constexpr std::array kShares = {0.9, 0.7, 0.5, 0.3};  // of the time from data to noise
  double sum = 0.0;
  const std::size_t count = pictures_.pictures.size();
  for (std::size_t i = 0; i < count; ++i) {
    const EncodedPicture& picture = pictures_.pictures[i];
    const EncodedCrop& other = pictures_.pictures[(i + shift) % count].crops.front();
    const at::Tensor& clean = picture.crops.front().mean;
    const at::Tensor noise = diffusion::seeded_noise({samples_.seed + i}, "control validation",
                                                     clean.sizes().vec(), clean.device())(0)[0];
    NoisyBatch batch;
    std::vector<at::Tensor> clean_rows, noise_rows, control_rows;
    for (const double share : kShares) {
      batch.levels.push_back(model_.noise_process()->level_at(share));
      clean_rows.push_back(clean);
      noise_rows.push_back(noise);
      control_rows.push_back(other.seen_control());
    }
    batch.latents = at::stack(clean_rows);
    batch.noise = at::stack(noise_rows);
    batch.control =
        pipeline::control_tensor(nn::to_device(at::stack(control_rows), clean.device()));
    const std::array frame = {pipeline::PictureFrame{samples_.size, 0, 0, samples_.size}};
    pipeline::Conditions row =
        model_.conditions(std::array{picture.caption}, frame, samples_.clip_skip);
    model_.add_guidance(row, samples_.guidance.value_or(model_.defaults().guidance));
    batch.conditions = row.repeated(static_cast<std::int64_t>(kShares.size()));
    sum += denoising_errors(model_, batch, {}, &control_).mean().item<double>();
  }
  return sum / static_cast<double>(count);
}

ControlScore ControlValidation::measure(std::int64_t step, io::Image& sheet) const {
  return nn::with_ringlet_errors("control validation", [&] { return measured(step, sheet); });
}

ControlScore ControlValidation::measured(std::int64_t step, io::Image& sheet) const {
  const at::NoGradGuard no_grad;
  ControlScore score{step, loss(0), loss(1), 0.0};
  std::vector<io::Image> pictures;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const EncodedPicture& picture = pictures_.pictures[i];
    const io::Image signal =
        pipeline::tensor_to_image(pipeline::pixels_of_bytes(picture.crops.front().control));
    pipeline::GenerateRequest request;
    request.prompt = picture.caption;
    request.steps = samples_.steps;
    request.guidance = samples_.guidance;
    request.size = samples_.size;
    request.clip_skip = samples_.clip_skip;
    request.seeds = {samples_.seed + i};
    request.control = &control_;
    request.control_image = signal;
    io::Image made = pipeline::generate(model_, request).front();
    if (metric_) score.metric += metric_.measure(sources_[i], made);
    pictures.insert(pictures.end(), {sources_[i], signal, std::move(made)});
  }
  score.metric = metric_ ? score.metric / static_cast<double>(sources_.size())
                         : std::numeric_limits<double>::quiet_NaN();
  sheet = io::image_grid(pictures, 3);
  return score;
}

std::vector<Score> scores_of(const ControlScore& score) {
  return {{"loss", false, score.loss},
          {"exchanged_loss", true, score.exchanged_loss},
          {"metric", true, score.metric}};
}

void add_scores(Report& report, const std::vector<ScoreRow>& rows, const std::string& metric) {
  if (rows.empty()) return;
  const auto series = [&](const std::string& name, std::size_t column) {
    ReportSeries values{name, {}};
    for (const ScoreRow& row : rows) values.values.emplace_back(row.step, row.scores[column].value);
    return values;
  };
  report.charts.push_back({"Loss on held-out pictures",
                           {series("own signal", 0), series("another picture's signal", 1)}});
  if (metric.empty()) return;
  report.charts.push_back({metric + " of held-out pictures", {series(metric, 2)}});
  report.summary.emplace_back(metric + " (held out)", number_text(rows.back().scores[2].value));
}

}  // namespace ringlet::train
