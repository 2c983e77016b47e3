#include "canny_options.h"

#include "options.h"

namespace ringlet::app {

void add_canny(CLI::App& app, data::CannyThresholds& thresholds) {
  app.add_option("--canny-low", thresholds.low, "Lower threshold of canny")->capture_default_str();
  app.add_option("--canny-high", thresholds.high, "Upper threshold of canny")
      ->capture_default_str();
}

void check_canny(const CLI::App& app, bool finds_edges) {
  if (!finds_edges)
    refuse_given(app, {"--canny-low", "--canny-high"},
                 "it says how canny finds edges in pictures, and none are to be found",
                 "leave it out");
}

}  // namespace ringlet::app
