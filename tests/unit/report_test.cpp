#include "ringlet/train/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>

#include <gtest/gtest.h>

#include "ringlet/io/image.h"

namespace ringlet::train {
namespace {

std::string png(std::uint8_t shade) {
  return io::encode_png({4, 2, std::vector<std::uint8_t>(4 * 2 * 3, shade)});
}

std::vector<MetricsRow> rows(std::int64_t count) {
  std::vector<MetricsRow> out;
  for (std::int64_t step = 1; step <= count; ++step) {
    const auto x = static_cast<double>(step);
    const double share = x / static_cast<double>(count);
    out.push_back({step, 0.1 + std::exp(-4.0 * share) + 0.05 * std::sin(x * x),
                   1e-4 * (1.0 - share), 1.0, x, 0});
  }
  return out;
}

Report whole_report() {
  Report report;
  report.title = "Lantern";
  report.summary = {{"Steps", "500"}, {"Final loss", "0.11"}};
  report.settings = {{"method", "ring"}, {"rank", "8"}};
  report.metrics = rows(500);
  report.comparisons = {{"a lantern", png(10), png(20)}};
  report.grids = {{0, "a lantern\nat night", png(30)}, {500, "a lantern\nat night", png(40)}};
  return report;
}

std::size_t count(std::string_view text, std::string_view word) {
  std::size_t found = 0;
  for (auto at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++found;
  return found;
}

/// Every element is closed in its order; quotes hide what they contain.
void expect_balanced(const std::string& html) {
  const std::set<std::string> kVoid{"meta", "img"};
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at)) {
    const std::size_t name_end = html.find_first_of(" />\n", at + 2);
    const std::string name = html.substr(at + 1, name_end - at - 1);
    std::size_t end = at;
    for (char quote = '\0'; end < html.size() && (quote != '\0' || html[end] != '>'); ++end) {
      if (html[end] == '"') quote = quote == '\0' ? '"' : '\0';
      ASSERT_TRUE(end == at || quote != '\0' || html[end] != '<') << html.substr(at, 80);
    }
    ASSERT_LT(end, html.size()) << html.substr(at, 80);
    if (name.starts_with("/")) {
      ASSERT_FALSE(open.empty()) << name;
      ASSERT_EQ("/" + open.back(), name);
      open.pop_back();
    } else if (!name.starts_with("!") && !kVoid.contains(name) && html[end - 1] != '/') {
      open.push_back(name);
    }
    at = end;
  }
  EXPECT_TRUE(open.empty()) << open.back();
}

/// The number of points of every drawn curve.
std::vector<std::size_t> curve_points(const std::string& html) {
  std::vector<std::size_t> out;
  const std::string start = "<path class=\"curve";
  for (auto at = html.find(start); at != html.npos; at = html.find(start, at + 1)) {
    const std::string path = html.substr(at, html.find("/>", at) - at);
    const std::string data = path.substr(path.find("d=\""));
    const auto points =
        std::count_if(data.begin(), data.end(), [](char c) { return c == 'M' || c == 'L'; });
    if (points != 2) out.push_back(static_cast<std::size_t>(points));  // 2: the legend's lines
  }
  return out;
}

TEST(Report, EverythingIsInIt) {
  const std::string html = report_html(whole_report());
  expect_balanced(html);
  for (const char* words :
       {"<title>Lantern</title>", "<h1>Lantern</h1>", "<dt>Final loss</dt><dd>0.11</dd>",
        "<th scope=\"row\">method</th><td>ring</td>", "Before and after", "<h3>Step 0</h3>",
        "<h3>Step 500</h3>", "a lantern\nat night", ">step</text>", ">loss</text>",
        ">learning rate</text>", "prefers-color-scheme: dark"})
    EXPECT_EQ(count(html, words) > 0, true) << words;
  EXPECT_EQ(count(html, "<img "), 4u);
  EXPECT_EQ(curve_points(html), (std::vector<std::size_t>{500, 500, 500}));
}

TEST(Report, NeedsNothingFromElsewhere) {
  const std::string html = report_html(whole_report());
  EXPECT_EQ(count(html, "http://") + count(html, "https://"), 0u);
  EXPECT_EQ(count(html, "src="), count(html, "src=\"data:image/png;base64,"));
  for (const char* words : {"href=", "<script", "<link", "@import", "url(h", "onload"})
    EXPECT_EQ(count(html, words), 0u) << words;
}

TEST(Report, PicturesAreTheirBytes) {
  Report report;
  const std::vector<std::pair<std::string, std::string>> cases{{"f", "Zg=="},
                                                               {"fo", "Zm8="},
                                                               {"foo", "Zm9v"},
                                                               {"foobar", "Zm9vYmFy"},  // RFC 4648
                                                               {"\xFF\xFE\xFB", "//77"}};
  for (const auto& [bytes, text] : cases) report.grids.push_back({1, "", bytes});
  const std::string html = report_html(report);
  for (const auto& [bytes, text] : cases)
    EXPECT_EQ(count(html, "src=\"data:image/png;base64," + text + "\""), 1u) << text;
}

TEST(Report, TextsAreEscaped) {
  const std::string bad = "</td><script>\"alert('1')\"&amp;\x01\x1B";
  Report report;
  report.title = bad;
  report.summary = {{bad, bad}};
  report.settings = {{bad, bad}};
  report.comparisons = {{bad, png(1), png(2)}};
  report.grids = {{1, bad, png(3)}};
  const std::string html = report_html(report);
  expect_balanced(html);
  EXPECT_EQ(count(html, "<script"), 0u);
  EXPECT_EQ(count(html, "\x01"), 0u);
  const std::string escaped =
      "&lt;/td&gt;&lt;script&gt;&quot;alert(&#39;1&#39;)&quot;&amp;amp;\\x01\\x1b";
  // Twice the title, four cells, two captions, and three descriptions of pictures.
  EXPECT_EQ(count(html, escaped), 11u);
}

TEST(Report, LongRunsAreThinnedAndKeepTheirSpikes) {
  Report report;
  report.metrics = rows(100000);
  // The axis leaves this step out, but its line must still leave the picture.
  report.metrics[54321].loss = 1000.0;
  const std::string html = report_html(report);
  expect_balanced(html);
  const auto points = curve_points(html);
  ASSERT_EQ(points.size(), 3u);
  for (const std::size_t one : points) {
    EXPECT_LE(one, 1000u);
    EXPECT_GT(one, 900u);
  }
  EXPECT_LT(html.size(), 100000u);
  // 2 heights of the plot above its upper edge: where far points are put.
  EXPECT_GT(count(html, " -514.0"), 0u);
}

TEST(Report, OddRunsAreDrawn) {
  const double nan = std::nan("");
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::vector<MetricsRow>> cases{
      {{1, 0.5, 1e-4, 1.0, 1.0, 0}},
      {{1, 0.0, 0.0, 0.0, 0.0, 0}, {2, 0.0, 0.0, 0.0, 0.0, 0}},
      {{1, nan, 1e-4, nan, 1.0, 1}, {2, infinity, nan, 1.0, 2.0, 2}},
      {{1, -3.0, 1e-4, 1.0, 1.0, 0}, {5, 1e30, 1e-4, 1.0, 2.0, 0}},
      {{1, 1.0, 1e-4, 1.0, 1.0, 0}, {2, std::nextafter(1.0, 2.0), 1e-4, 1.0, 2.0, 0}},
      {{1, 5e-324, 5e-324, 1.0, 1.0, 0}, {2, 1e-320, 1e-320, 1.0, 2.0, 0}}};
  for (const auto& metrics : cases) {
    Report report;
    report.metrics = metrics;
    const std::string html = report_html(report);
    expect_balanced(html);
    for (const char* words : {"nan", "inf\"", "inf ", "-0<"})
      EXPECT_EQ(count(html, words), 0u) << words << " in\n" << html;
  }
}

TEST(Report, StepsWithoutALossAreCounted) {
  Report report;
  report.metrics = rows(10);
  EXPECT_EQ(count(report_html(report), "not drawn"), 0u);
  report.metrics[3].loss = std::nan("");
  report.metrics[4].loss = std::nan("");
  EXPECT_EQ(count(report_html(report), "not drawn: 2<"), 1u);
}

TEST(Report, WhatIsEmptyHasNoSection) {
  const std::string html = report_html({});
  expect_balanced(html);
  for (const char* words : {"<section", "<svg", "<table", "<dl", "<img"})
    EXPECT_EQ(count(html, words), 0u) << words;
}

}  // namespace
}  // namespace ringlet::train
