// Line plots.
#include "ringlet/draw/plot.h"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::draw {
namespace {

Plot plot_of(std::vector<std::vector<std::pair<double, double>>> curves) {
  Plot plot;
  plot.title = "title";
  plot.x_label = "x";
  plot.y_label = "y";
  for (std::size_t i = 0; i < curves.size(); ++i)
    plot.curves.push_back({"curve " + std::to_string(i), std::move(curves[i])});
  return plot;
}

std::set<std::uint32_t> colours_of(const io::Image& image) {
  std::set<std::uint32_t> colours;
  for (std::size_t i = 0; i < image.pixels.size(); i += 3)
    colours.insert((image.pixels[i] << 16U) | (image.pixels[i + 1] << 8U) | image.pixels[i + 2]);
  return colours;
}

TEST(Plot, DrawsEveryCurveInItsColour) {
  const io::Image image = draw_plot(plot_of({{{1e3, 0.9}, {1e4, 0.5}}, {{2e3, 0.8}, {2e4, 0.4}}}));
  EXPECT_EQ(image.width, 960);
  EXPECT_EQ(image.height, 640);
  const std::set<std::uint32_t> colours = colours_of(image);
  for (const std::uint32_t colour : {0x0072B2U, 0xD55E00U, 0xFFFFFFU})
    EXPECT_TRUE(colours.contains(colour)) << std::hex << colour;
  EXPECT_FALSE(colours.contains(0x009E73U));  // of a third curve
}

// The ninth curve has the first one's colour: its points have another shape.
TEST(Plot, NoTwoCurvesLookTheSame) {
  const auto blue_pixels = [](std::size_t curves) {
    std::vector<std::vector<std::pair<double, double>>> points;
    for (std::size_t i = 0; i < curves; ++i) points.push_back({{i, i}});
    const io::Image image = draw_plot(plot_of(points));
    std::int64_t count = 0;
    for (std::size_t i = 0; i < image.pixels.size(); i += 3)
      count +=
          image.pixels[i] == 0x00 && image.pixels[i + 1] == 0x72 && image.pixels[i + 2] == 0xB2;
    return count;
  };
  EXPECT_GT(blue_pixels(9), blue_pixels(8));
  EXPECT_NE(blue_pixels(9), 2 * blue_pixels(8));
}

TEST(Plot, TheAxesMoveTheCurve) {
  Plot plot = plot_of({{{1, 0.2}, {10, 0.3}, {100, 0.25}}});
  const io::Image linear = draw_plot(plot);
  plot.logarithmic_x = true;
  const io::Image logarithmic = draw_plot(plot);
  EXPECT_NE(linear.pixels, logarithmic.pixels);
  plot.zero_y = true;
  EXPECT_NE(draw_plot(plot).pixels, logarithmic.pixels);
  plot.logarithmic_y = true;  // has no zero
  EXPECT_FALSE(draw_plot(plot).pixels.empty());
}

TEST(Plot, OddDataIsDrawn) {
  for (const bool logarithmic : {false, true})
    for (const auto& points : std::vector<std::vector<std::pair<double, double>>>{
             {{5, 5}},                          // one point: no range
             {{1e-9, 1e-9}, {1e12, 1e12}},      // very long axes
             {{1, 1}, {1.0000001, 1.0000001}},  // very short ones
             {{3, 1}, {2, 2}, {4, 1}}}) {       // backwards
      Plot plot = plot_of({points, {}});
      plot.logarithmic_x = plot.logarithmic_y = logarithmic;
      plot.curves.front().name.assign(300, 'x').append("\xc3\xa4");
      EXPECT_EQ(draw_plot(plot).pixels.size(), 960U * 640U * 3U);
    }
}

TEST(Plot, WrongDataIsExplained) {
  const auto fails = [](const Plot& plot, const char* words) {
    expect_error(ErrorCode::invalid_argument, words, [&] { draw_plot(plot); });
  };
  fails(plot_of({}), "no points");
  fails(plot_of({{}}), "no points");
  fails(plot_of({{{1, NAN}}}), "\"curve 0\" is not finite");
  Plot plot = plot_of({{{0, 1}}});
  plot.logarithmic_x = true;
  fails(plot, "logarithmic");
  plot = plot_of({{{1, 1}}});
  plot.width = 100;
  fails(plot, "320 x 240");
}

/// How many pixels of a row have a colour.
std::int64_t count_in_row(const io::Image& image, std::int64_t y, std::uint32_t colour) {
  std::int64_t count = 0;
  for (std::int64_t x = 0; x < image.width; ++x) {
    const auto* pixel = &image.pixels[static_cast<std::size_t>((y * image.width + x) * 3)];
    const std::uint32_t found = (pixel[0] << 16U) | (pixel[1] << 8U) | pixel[2];
    count += found == colour ? 1 : 0;
  }
  return count;
}

TEST(Plot, BarsAreAsLongAsTheirParts) {
  const io::Image image = draw_bars({.title = "title",
                                     .x_label = "seconds",
                                     .parts = {"a", "b"},
                                     .bars = {{"one", {1.0, 3.0}}, {"two", {2.0, 0.0}}}});
  constexpr std::int64_t kFirst = 64 + 22, kSecond = kFirst + 44;
  const auto a = count_in_row(image, kFirst, 0x0072B2U), b = count_in_row(image, kFirst, 0xD55E00U);
  EXPECT_GT(a, 50);
  EXPECT_NEAR(static_cast<double>(b) / static_cast<double>(a), 3.0, 0.1);
  EXPECT_NEAR(static_cast<double>(count_in_row(image, kSecond, 0x0072B2U)),
              2.0 * static_cast<double>(a), 4.0);
}

TEST(Plot, RefusesBarsThatCannotBeDrawn) {
  const auto refused = [](const std::string& what, std::vector<Bar> bars) {
    expect_error(ErrorCode::invalid_argument, what, [&] {
      draw_bars({.title = "", .x_label = "", .parts = {"a", "b"}, .bars = std::move(bars)});
    });
  };
  refused("empty", {});
  refused("empty", {{"one", {0.0, 0.0}}});
  refused("another number of parts", {{"one", {1.0}}});
  refused("cannot be drawn", {{"one", {1.0, -1.0}}});
  refused("cannot be drawn", {{"one", {1.0, std::nan("")}}});
}

TEST(Plot, ACurveMayHaveNoMarkers) {
  Plot plot = plot_of({{{0.0, 0.0}, {1.0, 0.0}}});
  plot.zero_y = true;
  const auto blue = [](const io::Image& image) {
    std::int64_t count = 0;
    for (std::int64_t y = 0; y < image.height; ++y) count += count_in_row(image, y, 0x0072B2U);
    return count;
  };
  const std::int64_t with = blue(draw_plot(plot));
  plot.curves.front().markers = false;
  EXPECT_LT(blue(draw_plot(plot)), with);
}

}  // namespace
}  // namespace ringlet::draw
