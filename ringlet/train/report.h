// A training run as one HTML page.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/train/metrics_file.h"

namespace ringlet::train {

/// Pictures made during the run.
struct ReportGrid {
  std::int64_t step = 0;
  std::string caption;  ///< prompts; line breaks are kept
  std::string png;      ///< the bytes of a PNG file
};

/// One picture without and with what was trained.
struct ReportComparison {
  std::string caption;
  std::string png_before;
  std::string png_after;
};

/// A quantity at some of the steps.
struct ReportSeries {
  std::string name;
  std::vector<std::pair<std::int64_t, double>>
      values;  ///< step, value; what is not finite is left out
};

/// One or two quantities of the same unit over the steps.
struct ReportChart {
  std::string title;
  std::vector<ReportSeries> series;
};

struct Report {
  using Pairs = std::vector<std::pair<std::string, std::string>>;  ///< name, value

  std::string title;
  Pairs summary;   ///< the few numbers to see first
  Pairs settings;  ///< everything that made the run what it is
  std::vector<MetricsRow> metrics;
  std::vector<ReportChart> charts;  ///< beside the losses
  std::vector<ReportComparison> comparisons;
  std::vector<ReportGrid> grids;
};

/// A page that needs no other file, no network and no script: style, curves (SVG) and pictures
/// (data URIs) are inside. All texts are escaped, what is empty has no section, and a curve has at
/// most 1000 points. Throws nothing but std::bad_alloc.
std::string report_html(const Report& report);

}  // namespace ringlet::train
