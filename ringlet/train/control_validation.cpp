#include "ringlet/train/control_validation.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/diffusion/noise.h"
#include "ringlet/pipeline/image_tensor.h"
#include "ringlet/train/diffusion_loss.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHeader = "step,loss,exchanged_loss,metric";

std::string number(double value) {
  if (!std::isfinite(value)) return "nan";
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

ControlScore read_row(const fs::path& file, const std::string& line) {
  ControlScore row;
  const char* at = line.data();
  const char* const end = at + line.size();
  const auto take = [&](auto& value) {
    const auto [next, problem] = std::from_chars(at, end, value);
    if (problem != std::errc())
      throw Error(ErrorCode::bad_format, file.string(), "a row cannot be read: \"" + line + "\"",
                  "the file was changed; move it away");
    at = next == end ? next : next + 1;
  };
  take(row.step);
  for (double* value : {&row.loss, &row.exchanged_loss, &row.metric}) take(*value);
  return row;
}

}  // namespace

ControlValidation::ControlValidation(const pipeline::StableDiffusion& model,
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
  constexpr std::array kShares = {0.9, 0.7, 0.5, 0.3};  // of the training timesteps
  double sum = 0.0;
  const std::size_t count = pictures_.pictures.size();
  for (std::size_t i = 0; i < count; ++i) {
    const EncodedPicture& picture = pictures_.pictures[i];
    const EncodedCrop& other = pictures_.pictures[(i + shift) % count].crops.front();
    const at::Tensor& clean = picture.crops.front().mean;
    const at::Tensor noise = diffusion::seeded_noise({samples_.seed + i}, "control validation",
                                                     clean.sizes().vec(), clean.device())(0)[0];
    const auto text = pipeline::encode_prompts(model_.text(), std::array{picture.caption}, 1,
                                               model_.options().device);
    NoisyBatch batch;
    std::vector<at::Tensor> clean_rows, noise_rows, control_rows, text_rows, pooled_rows;
    for (const double share : kShares) {
      batch.timesteps.push_back(static_cast<std::int64_t>(
          share * static_cast<double>(model_.schedule().training_steps() - 1)));
      clean_rows.push_back(clean);
      noise_rows.push_back(noise);
      control_rows.push_back(other.control);
    }
    const auto rows = static_cast<std::int64_t>(kShares.size());
    batch.latents = at::stack(clean_rows);
    batch.noise = at::stack(noise_rows);
    batch.control = at::stack(control_rows).to(clean.device());
    batch.text = text.embeddings.expand({rows, -1, -1}).to(model_.options().precision);
    if (model_.files().sdxl())
      batch.added = {text.pooled.expand({rows, -1}),
                     models::size_conditions(samples_.size, samples_.size, 0, 0, samples_.size,
                                             samples_.size, clean.device())
                         .expand({rows, -1})};
    sum += denoising_errors(model_.unet(), model_.schedule(), batch, 0.0, &control_)
               .mean()
               .item<double>();
  }
  return sum / static_cast<double>(count);
}

ControlScore ControlValidation::measure(std::int64_t step, io::Image& sheet) const {
  const at::NoGradGuard no_grad;
  ControlScore score{step, loss(0), loss(1), 0.0};
  std::vector<io::Image> pictures;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const EncodedPicture& picture = pictures_.pictures[i];
    const io::Image signal = pipeline::tensor_to_image(picture.crops.front().control * 2.0 - 1.0);
    pipeline::GenerateRequest request;
    request.prompt = picture.caption;
    request.steps = samples_.steps;
    request.guidance.scale = samples_.guidance;
    request.width = request.height = samples_.size;
    request.seeds = {samples_.seed + i};
    request.control = &control_;
    request.control_image = signal;
    io::Image made = model_.decode(model_.sample(request, {})).front();
    if (metric_) score.metric += metric_.measure(sources_[i], made);
    pictures.insert(pictures.end(), {sources_[i], signal, std::move(made)});
  }
  score.metric = metric_ ? score.metric / static_cast<double>(sources_.size())
                         : std::numeric_limits<double>::quiet_NaN();
  sheet = io::image_grid(pictures, 3);
  return score;
}

ControlScores::ControlScores(fs::path file, std::int64_t last_step) : file_(std::move(file)) {
  if (last_step == 0 || !fs::exists(file_)) return;
  std::ifstream stream(file_);
  std::string line;
  if (!std::getline(stream, line) || line != kHeader)
    throw Error(ErrorCode::bad_format, file_.string(), "is no list of control scores",
                "move it away");
  while (std::getline(stream, line))
    if (const ControlScore row = read_row(file_, line); row.step <= last_step) rows_.push_back(row);
}

void ControlScores::add(const ControlScore& score) {
  while (!rows_.empty() && rows_.back().step >= score.step) rows_.pop_back();
  rows_.push_back(score);
  std::string text = std::string(kHeader) + "\n";
  for (const ControlScore& row : rows_)
    text += std::to_string(row.step) + "," + number(row.loss) + "," + number(row.exchanged_loss) +
            "," + number(row.metric) + "\n";
  write_file_atomically(file_, text);
}

void add_scores(Report& report, const ControlScores& scores, const std::string& metric) {
  if (scores.rows().empty()) return;
  ReportSeries own{"own signal", {}}, exchanged{"another picture's signal", {}},
      measured{metric, {}};
  for (const ControlScore& row : scores.rows()) {
    own.values.emplace_back(row.step, row.loss);
    exchanged.values.emplace_back(row.step, row.exchanged_loss);
    measured.values.emplace_back(row.step, row.metric);
  }
  report.charts.push_back({"Loss on held-out pictures", {own, exchanged}});
  if (metric.empty()) return;
  report.charts.push_back({metric + " of held-out pictures", {measured}});
  report.summary.emplace_back(metric + " (held out)", number(scores.rows().back().metric));
}

}  // namespace ringlet::train
