#include "canny_options.h"

#include "options.h"

namespace ringlet::app {

void add_canny(OptionList& list, data::CannyThresholds& thresholds) {
  list.add("canny_low", thresholds.low, "Lower threshold of canny");
  list.add("canny_high", thresholds.high, "Upper threshold of canny");
}

void check_canny(const CLI::App& app, bool finds_edges) {
  if (!finds_edges)
    refuse_given(app, {"--canny-low", "--canny-high"},
                 "it sets how canny finds edges, but edges are not computed here", "leave it out");
}

}  // namespace ringlet::app
