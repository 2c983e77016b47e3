// Line plots and bars as pictures.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/io/image.h"

namespace ringlet::draw {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;          ///< x, y, in drawing order
  std::vector<std::pair<double, double>> intervals = {};  ///< of each point's y, or none at all
  bool markers = true;                                    ///< at every point
};

struct Plot {
  std::string title, x_label, y_label;
  bool logarithmic_x = false;
  bool logarithmic_y = false;
  bool zero_y = false;  ///< the y axis starts at 0; not with logarithmic_y
  std::vector<Curve> curves;
  std::int64_t width = 960;
  std::int64_t height = 640;
};

/// Draws axes, grid, curves with a marker at every point, and a legend that names them; characters
/// outside ASCII are drawn as "?". Throws Error(invalid_argument) for a plot without points or of
/// less than 320 x 240 pixels, for numbers that are not finite, and for those not above zero on a
/// logarithmic axis.
io::Image draw_plot(const Plot& plot);

/// A bar of parts that follow each other.
struct Bar {
  std::string name;
  std::vector<double> parts;  ///< 0 or above, one for each of BarPlot::parts
};

struct BarPlot {
  std::string title, x_label;
  std::vector<std::string> parts;  ///< what a colour stands for
  std::vector<Bar> bars;           ///< from the top
  std::int64_t width = 960;
};

/// Draws bars below each other, and a legend that names their parts. Throws
/// Error(invalid_argument) without bars, for another number of parts, for numbers that are not
/// finite and 0 or above, and where all are 0.
io::Image draw_bars(const BarPlot& plot);

}  // namespace ringlet::draw
