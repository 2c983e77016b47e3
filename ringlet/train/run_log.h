// What a training run writes for people: metrics, TensorBoard events, sample grids, a report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "ringlet/io/image.h"
#include "ringlet/train/event_file.h"
#include "ringlet/train/metrics_file.h"
#include "ringlet/train/report.h"
#include "ringlet/train/trainer.h"

namespace ringlet::train {

class RunLog {
 public:
  /// Files go into `folder`, which is made: metrics.csv, events…, samples/step-NNNNNNNN.png and
  /// report.html. A run that resumes after `first_step` keeps its earlier rows and grids. Without
  /// `writes` (see DataParallel::writes) they are another rank's: nothing is made or written here.
  RunLog(const std::filesystem::path& folder, std::int64_t first_step, bool writes = true);

  void add(const StepResult& step);

  /// To the disk: before a checkpoint that counts the steps so far as done.
  void flush();

  void add_samples(std::int64_t step, const io::Image& grid);

  /// Whether the grid of a step is there, from before an interruption.
  bool has_samples(std::int64_t step) const;

  /// Writes report.html from all that is in the folder, and names it. `captions` describes the
  /// grids' rows.
  std::filesystem::path write_report(Report report, const std::string& captions) const;

 private:
  std::filesystem::path samples_file(std::int64_t step) const;
  void write_files(Report report, const std::string& captions) const;

  /// What grows while the run writes it.
  struct Files {
    Files(const std::filesystem::path& folder, std::int64_t first_step)
        : metrics(folder / "metrics.csv", first_step), events(folder) {}
    MetricsFile metrics;
    EventFile events;
  };

  std::filesystem::path folder_;
  std::optional<Files> files_;  ///< of the rank that writes
  double seconds_ = 0.0;
  std::int64_t skipped_ = 0;
};

}  // namespace ringlet::train
