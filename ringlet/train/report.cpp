#include "ringlet/train/report.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

#include "ringlet/draw/html.h"

namespace ringlet::train {
namespace {

constexpr std::size_t kMostPoints = 1000;

/// With so many significant digits, whatever the locale says.
std::string number(double value, int significant = 6) {
  std::array<char, 64> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value,
                                    std::chars_format::general, significant);
  return {text.data(), result.ptr};
}

/// A tenth of a pixel is as fine as it is seen.
std::string coordinate(double value) {
  std::array<char, 64> text{};
  const auto result =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, 1);
  return {text.data(), result.ptr};
}

struct Point {
  double x;
  double y;
};
using Points = std::vector<Point>;

/// At most kMostPoints: of each stretch of the curve the lowest and the highest, so that spikes
/// stay, and both ends.
Points thinned(const Points& points) {
  if (points.size() <= kMostPoints) return points;
  constexpr std::size_t kStretches = kMostPoints / 2 - 1;
  const auto inner = std::span(points).subspan(1, points.size() - 2);
  Points out{points.front()};
  for (std::size_t i = 0; i < kStretches; ++i) {
    const std::size_t begin = inner.size() * i / kStretches;
    const auto stretch = inner.subspan(begin, inner.size() * (i + 1) / kStretches - begin);
    const auto [low, high] = std::minmax_element(
        stretch.begin(), stretch.end(), [](const Point& a, const Point& b) { return a.y < b.y; });
    out.push_back(*std::min(low, high));
    if (low != high) out.push_back(*std::max(low, high));
  }
  out.push_back(points.back());
  return out;
}

/// The finite values of a column over the steps.
Points column(const std::vector<MetricsRow>& rows, double MetricsRow::*member) {
  Points out;
  for (const MetricsRow& row : rows)
    if (std::isfinite(row.*member)) out.push_back({static_cast<double>(row.step), row.*member});
  return out;
}

/// An exponential mean over about `window` points; divided by the sum of its weights, so that the
/// first points are not pulled to 0.
Points smoothed(const Points& points, double window) {
  const double keep = 1.0 - 1.0 / window;
  double mean = 0.0;
  double weight = 0.0;
  Points out;
  for (const Point& point : points) {
    mean = keep * mean + (1.0 - keep) * point.y;
    weight = keep * weight + (1.0 - keep);
    out.push_back({point.x, mean / weight});
  }
  return out;
}

struct Range {
  double low;
  double high;
};

/// From all but the outermost hundredth on each side: one spike must not press the rest flat.
Range usual_range(const Points& points) {
  std::vector<double> values;
  for (const Point& point : points) values.push_back(point.y);
  std::sort(values.begin(), values.end());
  const std::size_t aside = values.size() / 100;
  return {values[aside], values[values.size() - 1 - aside]};
}

/// With a margin, and never empty.
Range range_around(Range range, double share) {
  const double size = std::max(std::abs(range.low), std::abs(range.high));
  double more = (range.high - range.low) * share;
  if (range.high - range.low <= 1e-6 * size) more = size > 0.0 ? 0.1 * size : 1.0;
  // Where no value is negative, the axis shows no negative numbers.
  const double low = range.low >= 0.0 ? std::max(0.0, range.low - more) : range.low - more;
  return {low, range.high + more};
}

/// About `count` round numbers (1, 2 or 5 times a power of ten apart, at least `least`).
std::vector<double> ticks(Range range, int count, double least = 0.0) {
  constexpr std::size_t kMost = 20;  // ends the loop where adding 1 changes nothing any more
  const double rough = (range.high - range.low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double distance = 10.0 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) distance = factor * power;
  distance = std::max(distance, least);
  std::vector<double> out;
  for (double k = std::ceil(range.low / distance); k * distance <= range.high && out.size() < kMost;
       ++k)
    out.push_back(k * distance + 0.0);  // -0 becomes 0
  return out;
}

struct Curve {
  Points points;
  std::string style;
  std::string name;
};

struct Chart {
  std::string description;
  std::string y_label;
  double height = 0.0;
  std::vector<Curve> curves;
  Range x{};
  Range y{};
};

constexpr double kWidth = 900.0;
constexpr double kLeft = 80.0;
constexpr double kRight = 30.0;  // half of the last step's number
constexpr double kTop = 26.0;
constexpr double kBottom = 44.0;

double place_x(const Chart& chart, double x) {
  return kLeft + (x - chart.x.low) / (chart.x.high - chart.x.low) * (kWidth - kLeft - kRight);
}

/// SVG counts downwards.
double place_y(const Chart& chart, double y) {
  const double share = (y - chart.y.low) / (chart.y.high - chart.y.low);
  // Points far outside stay outside, but within what every browser can draw.
  return kTop + (1.0 - std::clamp(share, -2.0, 3.0)) * (chart.height - kTop - kBottom);
}

std::string svg_text(double x, double y, std::string_view anchor, std::string_view text,
                     std::string_view more = "") {
  return "<text x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\" text-anchor=\"" +
         std::string(anchor) + "\"" + std::string(more) + ">" + draw::html_escape(text) +
         "</text>\n";
}

std::string svg_line(double x1, double y1, double x2, double y2, std::string_view style) {
  return "<path class=\"" + std::string(style) + "\" d=\"M" + coordinate(x1) + " " +
         coordinate(y1) + "L" + coordinate(x2) + " " + coordinate(y2) + "\"/>\n";
}

std::string axes(const Chart& chart) {
  const double bottom = chart.height - kBottom;
  std::string out;
  for (const double value : ticks(chart.y, chart.height > 250.0 ? 6 : 3)) {
    const double y = place_y(chart, value);
    out += svg_line(kLeft, y, kWidth - kRight, y, "rule");
    out += svg_text(kLeft - 8.0, y + 4.0, "end", number(value));
  }
  for (const double step : ticks(chart.x, 8, 1.0)) {
    const double x = place_x(chart, step);
    out += svg_line(x, bottom, x, bottom + 5.0, "rule");
    out += svg_text(x, bottom + 20.0, "middle", number(step, 15));
  }
  out += svg_line(kLeft, bottom, kWidth - kRight, bottom, "rule");
  out += svg_text((kLeft + kWidth - kRight) / 2.0, chart.height - 6.0, "middle", "step");
  const double middle = (kTop + bottom) / 2.0;
  return out + svg_text(14.0, middle, "middle", chart.y_label,
                        " transform=\"rotate(-90 14 " + coordinate(middle) + ")\"");
}

std::string curve_path(const Chart& chart, const Curve& curve) {
  std::string out = "<path class=\"curve" + curve.style + "\" d=\"";
  char command = 'M';
  for (const Point& point : thinned(curve.points)) {
    out += command;
    out += coordinate(place_x(chart, point.x)) + " " + coordinate(place_y(chart, point.y));
    command = 'L';
  }
  // A single point is drawn as a dot by the line's round end.
  return out + (curve.points.size() == 1 ? "h0\"/>\n" : "\"/>\n");
}

std::string svg(const Chart& chart, const std::string& id) {
  std::string out = "<div class=\"chart\">\n<svg viewBox=\"0 0 " + number(kWidth) + " " +
                    number(chart.height) + "\" role=\"img\" aria-label=\"" +
                    draw::html_escape(chart.description) + "\">\n";
  out += "<clipPath id=\"" + id + "\"><rect x=\"" + number(kLeft) + "\" y=\"" + number(kTop) +
         "\" width=\"" + number(kWidth - kLeft - kRight) + "\" height=\"" +
         number(chart.height - kTop - kBottom) + "\"/></clipPath>\n" + axes(chart);
  out += "<g clip-path=\"url(#" + id + ")\">\n";
  for (const Curve& curve : chart.curves) out += curve_path(chart, curve);
  out += "</g>\n";
  double x = kWidth - kRight;
  for (const Curve& curve : chart.curves) {
    out += svg_text(x, 14.0, "end", curve.name);
    // Text cannot be measured here; 6.5 units a letter leave room at 12 pixels.
    x -= 6.5 * static_cast<double>(curve.name.size()) + 30.0;
    out += svg_line(x + 4.0, 10.0, x + 22.0, 10.0, "curve" + curve.style);
    x -= 14.0;
  }
  return out + "</svg>\n</div>\n";
}

/// Both charts have the same steps below each other.
Range step_range(const std::vector<MetricsRow>& rows) {
  const auto [first, last] =
      std::minmax_element(rows.begin(), rows.end(),
                          [](const MetricsRow& a, const MetricsRow& b) { return a.step < b.step; });
  const Range range{static_cast<double>(first->step), static_cast<double>(last->step)};
  return range.low < range.high ? range : Range{range.low - 1.0, range.high + 1.0};
}

std::string loss_chart(const std::vector<MetricsRow>& rows) {
  const Points raw = column(rows, &MetricsRow::loss);
  std::string out;
  if (!raw.empty()) {
    const double window = std::max(10.0, static_cast<double>(raw.size()) / 25.0);
    const Points mean = smoothed(raw, window);
    Range y = usual_range(raw);
    for (const Point& point : mean) y = {std::min(y.low, point.y), std::max(y.high, point.y)};
    out += svg({"Loss over the steps",
                "loss",
                340.0,
                {{raw, " raw", "loss"},
                 {mean, "", "mean over about " + number(std::round(window)) + " steps"}},
                step_range(rows),
                range_around(y, 0.05)},
               "loss-area");
  }
  if (raw.size() < rows.size())
    out += "<p class=\"note\">Steps whose loss is not a finite number, not drawn: " +
           std::to_string(rows.size() - raw.size()) + "</p>\n";
  return out;
}

std::string curves_section(const std::vector<MetricsRow>& rows) {
  if (rows.empty()) return "";
  std::string out = "<section>\n<h2>Loss</h2>\n" + loss_chart(rows);
  const Points rate = column(rows, &MetricsRow::learning_rate);
  if (!rate.empty()) {
    const auto [low, high] = std::minmax_element(
        rate.begin(), rate.end(), [](const Point& a, const Point& b) { return a.y < b.y; });
    out += svg({"Learning rate over the steps",
                "learning rate",
                190.0,
                {{rate, " second", "learning rate"}},
                step_range(rows),
                range_around({std::min(0.0, low->y), high->y}, 0.08)},
               "rate-area");
  }
  return out + "</section>\n";
}

Points finite_points(const ReportSeries& series) {
  Points out;
  for (const auto& [step, value] : series.values)
    if (std::isfinite(value)) out.push_back({static_cast<double>(step), value});
  return out;
}

std::string charts_section(const std::vector<ReportChart>& charts) {
  std::string out;
  for (const ReportChart& chart : charts) {
    std::vector<Curve> curves;
    Points all;
    for (const ReportSeries& series : chart.series) {
      const Points points = finite_points(series);
      if (points.empty()) continue;
      all.insert(all.end(), points.begin(), points.end());
      curves.push_back({points, curves.empty() ? "" : " second", series.name});
    }
    if (all.empty()) continue;
    const auto [low, high] = std::ranges::minmax(all, {}, &Point::y);
    const auto [first, last] = std::ranges::minmax(all, {}, &Point::x);
    const Range steps =
        first.x < last.x ? Range{first.x, last.x} : Range{first.x - 1.0, last.x + 1.0};
    out += "<section>\n<h2>" + draw::html_escape(chart.title) + "</h2>\n" +
           svg({chart.title + " over the steps", chart.title, 260.0, curves, steps,
                range_around({low.y, high.y}, 0.08)},
               "chart-" + std::to_string(&chart - charts.data())) +
           "</section>\n";
  }
  return out;
}

std::string summary_section(const Report::Pairs& pairs) {
  if (pairs.empty()) return "";
  std::string out = "<dl class=\"summary\">\n";
  for (const auto& [name, value] : pairs)
    out += "<div><dt>" + draw::html_escape(name) + "</dt><dd>" + draw::html_escape(value) +
           "</dd></div>\n";
  return out + "</dl>\n";
}

std::string settings_section(const Report::Pairs& pairs) {
  if (pairs.empty()) return "";
  return "<section>\n<h2>Settings</h2>\n" + draw::html_table(pairs) + "</section>\n";
}

std::string comparisons_section(const std::vector<ReportComparison>& comparisons) {
  if (comparisons.empty()) return "";
  std::string out = "<section>\n<h2>Before and after</h2>\n";
  for (const ReportComparison& one : comparisons)
    out += "<figure>\n<div class=\"pair\">\n<div>\n<h3>Before</h3>\n" +
           draw::html_picture(one.png_before, "Before: " + one.caption) +
           "</div>\n<div>\n<h3>After</h3>\n" +
           draw::html_picture(one.png_after, "After: " + one.caption) +
           "</div>\n</div>\n<figcaption>" + draw::html_escape(one.caption) +
           "</figcaption>\n</figure>\n";
  return out + "</section>\n";
}

std::string grids_section(const std::vector<ReportGrid>& grids) {
  if (grids.empty()) return "";
  std::string out = "<section>\n<h2>Samples</h2>\n";
  for (const ReportGrid& grid : grids) {
    const std::string title = "Step " + std::to_string(grid.step);
    out += "<figure>\n<h3>" + title + "</h3>\n" +
           draw::html_picture(grid.png, title + ": " + grid.caption) + "<figcaption>" +
           draw::html_escape(grid.caption) + "</figcaption>\n</figure>\n";
  }
  return out + "</section>\n";
}

}  // namespace

std::string report_html(const Report& report) {
  return draw::html_page(
      report.title, summary_section(report.summary) + curves_section(report.metrics) +
                        charts_section(report.charts) + comparisons_section(report.comparisons) +
                        grids_section(report.grids) + settings_section(report.settings));
}

}  // namespace ringlet::train
