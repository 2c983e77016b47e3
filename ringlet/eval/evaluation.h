// What an evaluation has measured, on screen and in files.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/eval/statistics.h"

namespace ringlet::eval {

/// One metric. Set metrics (mIoU, FID) have no numbers of single samples.
struct Measured {
  std::string name;
  bool higher_is_better = true;
  Interval interval;
  std::vector<Sample> samples;
};

struct Evaluation {
  std::string kind;  ///< "control canny", "subject", …
  /// What the numbers mean: thresholds, networks, the references. Evaluations are comparable only
  /// where these are the same.
  std::vector<std::pair<std::string, std::string>> protocol;
  std::vector<std::pair<std::string, std::string>> settings;  ///< where the pictures come from
  std::vector<Measured> metrics;
  std::vector<std::string> notes;  ///< what was left out, and what a number does not say
};

/// A metric of samples with its interval. Throws as bootstrap_mean.
Measured measured(std::string name, bool higher_is_better, std::vector<Sample> samples);

/// {"kind", "protocol", "settings", "metrics": [{"name", "better", "mean", "low", "high",
/// "samples", "units", "runs", "values": [{"id", "unit", "run", "value"}]}], "notes"}.
Json to_json(const Evaluation& evaluation);

/// Reads what to_json wrote. Throws Error(not_found | bad_format).
Evaluation read_evaluation(const std::filesystem::path& file);

/// Lines for a terminal: a table of metrics with their intervals, then the notes.
std::string to_text(const Evaluation& evaluation);

/// The same as a page, with pictures (PNG bytes and captions) below the table.
std::string to_html(const Evaluation& evaluation,
                    const std::vector<std::pair<std::string, std::string>>& pictures);

/// A difference of two runs, by its metric.
using NamedDifference = std::pair<std::string, PairedDifference>;

/// Of every metric that both hold sample by sample, a - b. Throws Error(mismatch) for other kinds,
/// for entries of the protocol that both have and that differ, and as paired_difference.
std::vector<NamedDifference> compare(const Evaluation& a, const Evaluation& b);

/// [{"metric", "difference", "low", "high", "share_above_zero"}].
Json to_json(const std::vector<NamedDifference>& differences);

/// Lines for a terminal.
std::string to_text(const std::vector<NamedDifference>& differences);

/// The same as a page; `a` and `b` say what the runs are.
std::string to_html(const std::vector<NamedDifference>& differences, const std::string& a,
                    const std::string& b);

/// A short hash of files' names and contents, for the protocol. Throws Error(not_found | io).
std::string hash_of_files(std::vector<std::filesystem::path> files);

/// "0.512 [0.480, 0.544]"; the mean alone where one number was measured.
std::string interval_text(const Interval& interval);

}  // namespace ringlet::eval
