#include "canny_options.h"

#include "options.h"

namespace ringlet::app {

void check_canny(const CLI::App& app, bool finds_edges) {
  if (!finds_edges)
    refuse_given(app, {"--canny-low", "--canny-high"},
                 "it sets how canny finds edges, but edges are not computed here", "leave it out");
}

}  // namespace ringlet::app
