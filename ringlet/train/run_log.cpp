#include "ringlet/train/run_log.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/read_file.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

fs::path made(const fs::path& folder) {
  make_folder(folder / "samples", "choose another `out`");
  return folder;
}

}  // namespace

RunLog::RunLog(const fs::path& folder, std::int64_t first_step, bool writes) : folder_(folder) {
  if (!writes) return;
  nn::with_ringlet_errors(folder.string(), [&] {
    files_.emplace(made(folder), first_step);
    if (first_step == 0) return;
    files_->events.restart_at(first_step + 1);
    const std::vector<MetricsRow> rows = read_metrics(folder_ / "metrics.csv");
    if (rows.empty()) return;
    seconds_ = rows.back().seconds;
    skipped_ = rows.back().skipped;
  });
}

void RunLog::add(const StepResult& step) {
  seconds_ += step.seconds;
  skipped_ += step.skipped ? 1 : 0;
  if (!files_) return;
  files_->metrics.add(
      {step.step, step.loss, step.learning_rate, step.gradient_norm, seconds_, skipped_});
  files_->events.add_scalar("loss", step.step, step.loss);
  files_->events.add_scalar("learning rate", step.step, step.learning_rate);
  files_->events.add_scalar("gradient norm", step.step, step.gradient_norm);
}

void RunLog::flush() {
  if (!files_) return;
  files_->metrics.flush();
  files_->events.flush();
}

fs::path RunLog::samples_file(std::int64_t step) const {
  char name[40];
  std::snprintf(name, sizeof name, "step-%08lld.png", static_cast<long long>(step));
  return folder_ / "samples" / name;
}

bool RunLog::has_samples(std::int64_t step) const {
  std::error_code problem;
  return fs::exists(samples_file(step), problem);
}

void RunLog::add_samples(std::int64_t step, const io::Image& grid) {
  if (!files_) return;
  const std::string png = io::encode_png(grid);
  write_file_atomically(samples_file(step), png);
  files_->events.add_image("samples", step, png, grid.width, grid.height);
}

fs::path RunLog::write_report(Report report, const std::string& captions) const {
  if (files_)
    nn::with_ringlet_errors(folder_.string(), [&] { write_files(std::move(report), captions); });
  return folder_ / "report.html";
}

void RunLog::write_files(Report report, const std::string& captions) const {
  report.metrics = read_metrics(folder_ / "metrics.csv");
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_ / "samples"))
    if (entry.path().extension() == ".png") files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    const std::string stem = file.stem().string();
    constexpr std::size_t kStepPrefix = 5;  // "step-"
    if (stem.size() <= kStepPrefix) continue;
    ReportGrid grid{0, captions, read_file(file)};
    std::from_chars(stem.data() + kStepPrefix, stem.data() + stem.size(), grid.step);
    report.grids.push_back(std::move(grid));
  }
  if (report.grids.size() > 1)
    report.comparisons.push_back({captions, report.grids.front().png, report.grids.back().png});
  write_file_atomically(folder_ / "report.html", report_html(report));
}

}  // namespace ringlet::train
