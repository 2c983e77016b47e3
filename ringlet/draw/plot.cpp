#include "ringlet/draw/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include "ringlet/core/error.h"

namespace ringlet::draw {
namespace {

constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
const cv::Scalar kInk(40, 40, 40), kGrid(225, 225, 225);

/// The colours of Okabe and Ito, told apart by colour-blind eyes, too; RGB.
const std::array<cv::Scalar, 8> kColours = {cv::Scalar(0, 114, 178), cv::Scalar(213, 94, 0),
                                            cv::Scalar(0, 158, 115), cv::Scalar(204, 121, 167),
                                            cv::Scalar(230, 159, 0), cv::Scalar(86, 180, 233),
                                            cv::Scalar(0, 0, 0),     cv::Scalar(120, 94, 60)};

/// One axis: numbers to places between two pixels.
class Axis {
 public:
  Axis(double low, double high, bool logarithmic, double first, double last)
      : logarithmic_(logarithmic), first_(first), last_(last) {
    low_ = scaled(low);
    high_ = scaled(high);
    const double margin = high_ > low_ ? 0.05 * (high_ - low_) : 0.5;
    if (logarithmic || low != 0.0) low_ -= margin;
    high_ += margin;
  }

  double place(double value) const {
    return first_ + (scaled(value) - low_) / (high_ - low_) * (last_ - first_);
  }

  /// Round numbers: 1, 2 and 5 times powers of ten.
  std::vector<double> ticks() const {
    std::vector<double> found;
    if (logarithmic_) {
      for (double power = std::floor(low_); power <= high_; power += 1.0)
        for (const double digit : {1.0, 2.0, 5.0})
          if (const double tick = digit * std::pow(10.0, power); visible(tick))
            found.push_back(tick);
      if (found.size() > 1) return found;
    }
    const double low = logarithmic_ ? std::pow(10.0, low_) : low_;
    const double high = logarithmic_ ? std::pow(10.0, high_) : high_;
    constexpr double kTicks = 6.0;
    const double rough = (high - low) / kTicks,
                 power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = 10.0 * power;
    for (const double digit : {5.0, 2.0, 1.0})
      if (digit * power >= rough) step = digit * power;
    found.clear();
    for (double k = std::ceil(low / step); k * step <= high; k += 1.0)
      if (visible(k * step)) found.push_back(k * step);
    return found;
  }

 private:
  double scaled(double value) const { return logarithmic_ ? std::log10(value) : value; }
  bool visible(double value) const {
    return (!logarithmic_ || value > 0.0) && scaled(value) >= low_ && scaled(value) <= high_;
  }

  bool logarithmic_;
  double first_, last_;
  double low_, high_;
};

/// "0.25", "20k", "1.5M".
std::string tick_text(double value) {
  constexpr double kMega = 1e6, kKilo = 1e3;
  char text[32];
  const double size = std::abs(value);
  if (size >= kMega)
    std::snprintf(text, sizeof text, "%.3gM", value / kMega);
  else if (size >= kKilo)
    std::snprintf(text, sizeof text, "%.3gk", value / kKilo);
  else
    std::snprintf(text, sizeof text, "%.3g", size < 1e-12 ? 0.0 : value);
  return text;
}

cv::Point pixel(double x, double y) {
  return {static_cast<int>(std::lround(x)), static_cast<int>(std::lround(y))};
}

/// Text whose box has `anchor` at a share of its width and at its vertical middle.
void write_text(cv::Mat& canvas, const std::string& text, cv::Point anchor, double share,
                double size = 0.45) {
  int below = 0;
  const cv::Size box = cv::getTextSize(text, kFont, size, 1, &below);
  anchor.x -= static_cast<int>(share * box.width);
  anchor.y += box.height / 2;
  cv::putText(canvas, text, anchor, kFont, size, kInk, 1, cv::LINE_AA);
}

void draw_marker(cv::Mat& canvas, const cv::Point& at, std::size_t number) {
  const cv::Scalar& colour = kColours[number % kColours.size()];
  constexpr int kRadius = 5;
  const auto polygon = [&](const std::vector<cv::Point>& corners) {
    cv::fillConvexPoly(canvas, corners, colour, cv::LINE_AA);
  };
  constexpr int kShapes = 4;
  switch ((number + number / kColours.size()) % kShapes) {  // no colour twice with one shape
    case 0:
      cv::circle(canvas, at, kRadius, colour, cv::FILLED, cv::LINE_AA);
      return;
    case 1:
      polygon({at + cv::Point(-kRadius, -kRadius), at + cv::Point(kRadius, -kRadius),
               at + cv::Point(kRadius, kRadius), at + cv::Point(-kRadius, kRadius)});
      return;
    case 2:
      polygon({at + cv::Point(0, -kRadius - 1), at + cv::Point(kRadius + 1, kRadius),
               at + cv::Point(-kRadius - 1, kRadius)});
      return;
    default:
      polygon({at + cv::Point(0, -kRadius - 2), at + cv::Point(kRadius + 2, 0),
               at + cv::Point(0, kRadius + 2), at + cv::Point(-kRadius - 2, 0)});
  }
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

void check(const Plot& plot) {
  constexpr std::int64_t kLeastWidth = 320, kLeastHeight = 240;
  const auto fail = [](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "plot", what);
  };
  if (plot.width < kLeastWidth || plot.height < kLeastHeight)
    fail("must have at least 320 x 240 pixels");
  bool any = false;
  for (const Curve& curve : plot.curves)
    for (const auto& [x, y] : curve.points) {
      any = true;
      if (!std::isfinite(x) || !std::isfinite(y)) fail("\"" + curve.name + "\" is not finite");
      if ((plot.logarithmic_x && x <= 0.0) || (plot.logarithmic_y && y <= 0.0))
        fail("\"" + curve.name + "\" has a number on a logarithmic axis that is not above zero");
    }
  for (const Curve& curve : plot.curves) {
    if (!curve.intervals.empty() && curve.intervals.size() != curve.points.size())
      fail("\"" + curve.name + "\" has points without an interval");
    for (const auto& [low, high] : curve.intervals)
      if (!std::isfinite(low) || !std::isfinite(high) || (plot.logarithmic_y && low <= 0.0))
        fail("\"" + curve.name + "\" has an interval that cannot be drawn");
  }
  if (!any) fail("has no points");
}

/// The picture with its frame: where things are.
struct Frame {
  int left, right, top, bottom;
};

constexpr int kGap = 14;

void draw_x_axis(cv::Mat& canvas, const Axis& x, const std::string& label, const Frame& frame) {
  for (const double tick : x.ticks()) {
    const int at = pixel(x.place(tick), 0).x;
    cv::line(canvas, {at, frame.top}, {at, frame.bottom}, kGrid);
    write_text(canvas, tick_text(tick), {at, frame.bottom + kGap}, 0.5);
  }
  write_text(canvas, label, {(frame.left + frame.right) / 2, frame.bottom + 2 * kGap + 6}, 0.5);
}

void draw_frame(cv::Mat& canvas, const std::string& title, const Frame& frame) {
  cv::rectangle(canvas, {frame.left, frame.top}, {frame.right, frame.bottom}, kInk);
  constexpr double kTitle = 0.6;
  write_text(canvas, title, {(frame.left + frame.right) / 2, frame.top - 2 * kGap - kGap / 2}, 0.5,
             kTitle);
}

void draw_axes(cv::Mat& canvas, const Plot& plot, const Frame& frame, const Axis& x,
               const Axis& y) {
  draw_x_axis(canvas, x, plot.x_label, frame);
  for (const double tick : y.ticks()) {
    const int at = pixel(0, y.place(tick)).y;
    cv::line(canvas, {frame.left, at}, {frame.right, at}, kGrid);
    write_text(canvas, tick_text(tick), {frame.left - kGap / 2, at}, 1.0);
  }
  draw_frame(canvas, plot.title, frame);
  write_text(canvas, plot.y_label, {kGap, frame.top - kGap}, 0.0);
}

void draw_interval(cv::Mat& canvas, int x, const Axis& y, const std::pair<double, double>& interval,
                   const cv::Scalar& colour) {
  constexpr int kHalf = 5;
  const int low = pixel(0, y.place(interval.first)).y, high = pixel(0, y.place(interval.second)).y;
  cv::line(canvas, {x, low}, {x, high}, colour, 1, cv::LINE_AA);
  for (const int end : {low, high})
    cv::line(canvas, {x - kHalf, end}, {x + kHalf, end}, colour, 1, cv::LINE_AA);
}

struct LegendRow {
  std::string name;
  bool marker = true;  ///< else a patch of colour
};

std::vector<LegendRow> legend_of(const Plot& plot) {
  std::vector<LegendRow> rows;
  for (const Curve& curve : plot.curves) rows.push_back({curve.name, curve.markers});
  return rows;
}

void draw_legend(cv::Mat& canvas, const std::vector<LegendRow>& rows, const Frame& frame) {
  constexpr int kRow = 22, kSwatch = 28, kSpace = 12;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const cv::Point at(frame.right + kSpace, frame.top + kRow / 2 + static_cast<int>(i) * kRow);
    cv::line(canvas, at, at + cv::Point(kSwatch, 0), kColours[i % kColours.size()],
             rows[i].marker ? 2 : kSpace / 2, cv::LINE_AA);
    if (rows[i].marker) draw_marker(canvas, at + cv::Point(kSwatch / 2, 0), i);
    write_text(canvas, rows[i].name, at + cv::Point(kSwatch + kSpace / 2, 0), 0.0);
  }
}

/// Room for the texts.
int legend_width(const std::vector<LegendRow>& rows, std::int64_t most) {
  constexpr double kSize = 0.45;
  constexpr int kAround = 60;
  int widest = 0, below = 0;
  for (const LegendRow& row : rows)
    widest = std::max(widest, cv::getTextSize(row.name, kFont, kSize, 1, &below).width);
  return std::min(widest + kAround, static_cast<int>(most));
}

cv::Mat white_canvas(io::Image& image) {
  image.pixels.assign(static_cast<std::size_t>(image.width * image.height * 3), 255);
  return {static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
          image.pixels.data()};
}

/// The sum of the longest bar's parts, above 0.
double longest_bar(const BarPlot& plot) {
  const auto fail = [](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "bars", what);
  };
  constexpr std::int64_t kLeastWidth = 320;
  if (plot.width < kLeastWidth) fail("must have at least 320 pixels");
  double longest = 0.0;
  for (const Bar& bar : plot.bars) {
    if (bar.parts.size() != plot.parts.size())
      fail("\"" + bar.name + "\" has another number of parts");
    double sum = 0.0;
    for (const double part : bar.parts) {
      if (!std::isfinite(part) || part < 0.0)
        fail("\"" + bar.name + "\" has a part that cannot be drawn");
      sum += part;
    }
    longest = std::max(longest, sum);
  }
  if (!(longest > 0.0)) fail("are all empty");
  return longest;
}

}  // namespace

io::Image draw_plot(const Plot& plot) {
  check(plot);
  io::Image image{plot.width, plot.height, {}};
  cv::Mat canvas = white_canvas(image);
  constexpr int kLeft = 70, kTop = 64, kBottom = 56;
  const Frame frame = {kLeft,
                       static_cast<int>(plot.width) - legend_width(legend_of(plot), plot.width / 2),
                       kTop, static_cast<int>(plot.height) - kBottom};
  Range xs, ys;
  for (const Curve& curve : plot.curves)
    for (const auto& [x, y] : curve.points) {
      xs.add(x);
      ys.add(y);
    }
  for (const Curve& curve : plot.curves)
    for (const auto& [low, high] : curve.intervals) ys.add(low), ys.add(high);
  if (plot.zero_y && !plot.logarithmic_y) ys.add(0.0);
  const Axis x(xs.low, xs.high, plot.logarithmic_x, frame.left, frame.right);
  const Axis y(ys.low, ys.high, plot.logarithmic_y, frame.bottom, frame.top);
  draw_axes(canvas, plot, frame, x, y);
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    std::vector<cv::Point> places;
    for (const auto& point : plot.curves[i].points)
      places.push_back(pixel(x.place(point.first), y.place(point.second)));
    cv::polylines(canvas, places, false, kColours[i % kColours.size()], 2, cv::LINE_AA);
    for (std::size_t n = 0; n < plot.curves[i].intervals.size(); ++n)
      draw_interval(canvas, places[n].x, y, plot.curves[i].intervals[n],
                    kColours[i % kColours.size()]);
    if (plot.curves[i].markers)
      for (const cv::Point& place : places) draw_marker(canvas, place, i);
  }
  draw_legend(canvas, legend_of(plot), frame);
  return image;
}

io::Image draw_bars(const BarPlot& plot) {
  constexpr int kRow = 44, kThickness = 26, kTop = 64, kBottom = 56;
  const double longest = longest_bar(plot);
  std::vector<LegendRow> legend;
  for (const std::string& part : plot.parts) legend.push_back({part, false});
  std::vector<LegendRow> names;
  for (const Bar& bar : plot.bars) names.push_back({bar.name, false});
  const int rows = kRow * static_cast<int>(std::max(plot.bars.size(), (plot.parts.size() + 1) / 2));
  io::Image image{plot.width, kTop + rows + kBottom, {}};
  cv::Mat canvas = white_canvas(image);
  const Frame frame = {legend_width(names, plot.width / 3) - kGap,
                       static_cast<int>(plot.width) - legend_width(legend, plot.width / 3), kTop,
                       kTop + rows};
  const Axis x(0.0, longest, false, frame.left, frame.right);
  draw_x_axis(canvas, x, plot.x_label, frame);
  draw_frame(canvas, plot.title, frame);
  for (std::size_t i = 0; i < plot.bars.size(); ++i) {
    const int middle = frame.top + kRow / 2 + static_cast<int>(i) * kRow;
    write_text(canvas, plot.bars[i].name, {frame.left - kGap, middle}, 1.0);
    double end = 0.0;
    for (std::size_t part = 0; part < plot.parts.size(); ++part) {
      const double begin = end;
      end += plot.bars[i].parts[part];
      cv::rectangle(canvas, pixel(x.place(begin), middle - kThickness / 2.0),
                    pixel(x.place(end), middle + kThickness / 2.0),
                    kColours[part % kColours.size()], cv::FILLED);
    }
  }
  draw_legend(canvas, legend, frame);
  return image;
}

}  // namespace ringlet::draw
