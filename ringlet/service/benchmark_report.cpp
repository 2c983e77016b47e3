#include "ringlet/service/benchmark_report.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/text.h"
#include "ringlet/draw/html.h"
#include "ringlet/draw/plot.h"
#include "ringlet/nn/device.h"
#include "ringlet/service/machine_report.h"

namespace ringlet::service {
namespace {

constexpr double kGiga = 1e9, kMilli = 1e-3;

std::string number(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// The first training method; null where there is none.
const BenchmarkRow* first_method(const BenchmarkResult& result) {
  return result.rows.size() > 1 ? &result.rows[1] : nullptr;
}

double share_of_products(const BenchmarkRequest& request, const BenchmarkResult& result,
                         const BenchmarkRow& row) {
  return row.operations() / row.median_seconds() / result.product_speed(request.load.precision);
}

Json kinds_json(const BenchmarkRow& row) {
  Json kinds = Json::object();
  for (std::size_t i = 0; i < row.kinds.size(); ++i)
    kinds[std::string(nn::kLayerKindNames[i])] = {{"seconds", row.kinds[i].seconds},
                                                  {"operations", row.kinds[i].operations},
                                                  {"bytes", row.kinds[i].bytes}};
  return kinds;
}

std::string html_of(const TextTable& table) {
  std::string html = "<table>\n";
  for (std::size_t i = 0; i < table.size(); ++i) {
    html += "<tr>";
    for (const std::string& cell : table[i])
      html += (i == 0 ? "<th>" : "<td>") + draw::html_escape(cell) + (i == 0 ? "</th>" : "</td>");
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

std::string page_of(const BenchmarkRequest& request, const BenchmarkResult& result) {
  const Json json = to_json(request, result);
  const auto text = [&](const char* key) { return json.at(key).get<std::string>(); };
  std::string body = draw::html_table(
      {{"Model", result.model},
       {"Pictures", result.size.text() + ", " + std::to_string(request.batch_size) + " at a time"},
       {"Machine", text("cpu") + ", " + json.at("threads").dump() + " threads"},
       {"Computed on", text("device") + " in " + text("precision")},
       {"Products", number("fp32 %.0f", result.speed.fp32 / kGiga) +
                        number(", bf16 %.0f GFLOP/s", result.speed.bf16 / kGiga)},
       {"Memory", number("%.1f GB/s", result.speed.memory / kGiga)},
       {"Versions", "ringlet " + text("ringlet") + ", LibTorch " + text("libtorch")}});
  const auto picture = [&](const io::Image& image, const std::string& what) {
    body += draw::html_picture(io::encode_png(image), what);
  };
  body += "<h2>Passes</h2>\n" + html_of(pass_table(request, result));
  body += "<h2>Milliseconds by kind of layer</h2>\n" + html_of(kind_table(result));
  picture(draw_kinds(result), "Time by kind of layer");
  body += "<h2>Memory over a step</h2>\n";
  picture(draw_memory(result), "Memory over a step");
  body += "<h2>Roofline</h2>\n";
  picture(draw_roofline(request, result), "Speed against operations per byte");
  return draw::html_page("ringlet bench", body);
}

/// At most so many moments, of those that fall together the one with the most memory.
std::vector<std::pair<double, double>> thinned(const std::vector<MemoryMoment>& memory) {
  constexpr std::size_t kMost = 400;
  constexpr double kMebi = 1 << 20;
  const std::size_t length = (memory.size() + kMost - 1) / kMost;
  std::vector<std::pair<double, double>> points;
  for (std::size_t first = 0; first < memory.size(); first += length) {
    const auto begin = memory.begin() + static_cast<std::ptrdiff_t>(first);
    const auto end =
        memory.begin() + static_cast<std::ptrdiff_t>(std::min(first + length, memory.size()));
    const MemoryMoment most = *std::max_element(
        begin, end, [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    points.emplace_back(most.seconds / kMilli, static_cast<double>(most.bytes) / kMebi);
  }
  return points;
}

}  // namespace

Json to_json(const BenchmarkRequest& request, const BenchmarkResult& result) {
  const Json machine = machine_report({.measure = false});
  Json rows = Json::array();
  for (const BenchmarkRow& row : result.rows)
    rows.push_back({{"name", row.name},
                    {"rows", row.rows},
                    {"parameters", row.parameters},
                    {"seconds", row.seconds},
                    {"peak_bytes", row.peak_bytes},
                    {"kept_bytes", row.kept_bytes},
                    {"operations", row.operations()},
                    {"share_of_products", share_of_products(request, result, row)},
                    {"kinds", kinds_json(row)}});
  return {{"ringlet", machine.at("ringlet")},
          {"libtorch", machine.at("libtorch")},
          {"cpu", machine.at("cpu").at("name")},
          {"cores", machine.at("cpu").at("cores")},
          {"threads", machine.at("cpu").at("threads")},
          {"device", request.load.device.str()},
          {"precision", nn::precision_name(request.load.precision)},
          {"model", result.model},
          {"resolution", result.size},
          {"batch_size", request.batch_size},
          {"speed",
           {{"fp32_gflops", result.speed.fp32 / kGiga},
            {"bf16_gflops", result.speed.bf16 / kGiga},
            {"memory_gb_per_second", result.speed.memory / kGiga}}},
          {"rows", rows}};
}

TextTable pass_table(const BenchmarkRequest& request, const BenchmarkResult& result) {
  const BenchmarkRow* first = first_method(result);
  TextTable table = {{"pass", "pictures", "parameters", "seconds", "least", "most",
                      "/ " + (first != nullptr ? first->name : ""), "peak", "kept", "GFLOP/s",
                      "of products"}};
  for (const BenchmarkRow& row : result.rows) {
    const double seconds = row.median_seconds();
    const bool trains = row.parameters > 0;
    table.push_back(
        {row.name, std::to_string(row.rows), trains ? std::to_string(row.parameters) : "",
         number("%.4g", seconds), number("%.4g", *std::ranges::min_element(row.seconds)),
         number("%.4g", *std::ranges::max_element(row.seconds)),
         trains ? number("%.2f", seconds / first->median_seconds()) : "",
         human_bytes(row.peak_bytes),
         trains ? human_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(row.kept_bytes, 0)))
                : "",
         number("%.0f", row.operations() / seconds / kGiga),
         number("%.0f %%", 100.0 * share_of_products(request, result, row))});
  }
  return table;
}

TextTable kind_table(const BenchmarkResult& result) {
  TextTable table = {{"pass"}};
  for (const std::string_view name : nn::kLayerKindNames) table.front().emplace_back(name);
  for (const BenchmarkRow& row : result.rows) {
    std::vector<std::string> cells = {row.name};
    for (const KindProfile& kind : row.kinds)
      cells.push_back(number("%.1f", kind.seconds / kMilli));
    table.push_back(std::move(cells));
  }
  return table;
}

io::Image draw_kinds(const BenchmarkResult& result) {
  draw::BarPlot plot;
  plot.title = "Time by kind of layer";
  plot.x_label = "milliseconds";
  for (const std::string_view name : nn::kLayerKindNames) plot.parts.emplace_back(name);
  for (const BenchmarkRow& row : result.rows) {
    draw::Bar bar{row.name, {}};
    for (const KindProfile& kind : row.kinds) bar.parts.push_back(kind.seconds / kMilli);
    plot.bars.push_back(std::move(bar));
  }
  return draw::draw_bars(plot);
}

io::Image draw_memory(const BenchmarkResult& result) {
  draw::Plot plot;
  plot.title = "Memory of tensors over a step, above what was there before";
  plot.x_label = "milliseconds";
  plot.y_label = "MiB";
  plot.zero_y = true;
  for (const BenchmarkRow& row : result.rows)
    plot.curves.push_back({.name = row.name, .points = thinned(row.memory), .markers = false});
  return draw::draw_plot(plot);
}

io::Image draw_roofline(const BenchmarkRequest& request, const BenchmarkResult& result) {
  draw::Plot plot;
  plot.title = "Roofline";
  plot.x_label = "operations per byte";
  plot.y_label = "GFLOP/s";
  plot.logarithmic_x = plot.logarithmic_y = true;
  const double peak = result.product_speed(request.load.precision) / kGiga;
  const double memory = result.speed.memory / kGiga;
  const double corner = peak / memory;
  constexpr double kAround = 8.0;
  double left = corner / kAround, right = corner * kAround;
  std::vector<draw::Curve> curves;
  constexpr std::size_t kProducts = 3;  // linear layers, convolutions, attention
  for (const BenchmarkRow& row : result.rows) {
    if (&row != &result.rows.front() && &row != first_method(result)) continue;
    for (std::size_t i = 0; i < kProducts; ++i) {
      const KindProfile& kind = row.kinds[i];
      if (!(kind.operations > 0.0 && kind.seconds > 0.0 && kind.bytes > 0.0)) continue;
      const double intensity = kind.operations / kind.bytes;
      left = std::min(left, intensity);
      right = std::max(right, intensity);
      curves.push_back({row.name + ": " + std::string(nn::kLayerKindNames[i]),
                        {{intensity, kind.operations / kind.seconds / kGiga}}});
    }
  }
  plot.curves.push_back({.name = "bound",
                         .points = {{left, std::min(peak, left * memory)},
                                    {std::min(corner, right), std::min(peak, right * memory)},
                                    {right, std::min(peak, right * memory)}},
                         .markers = false});
  std::ranges::move(curves, std::back_inserter(plot.curves));
  return draw::draw_plot(plot);
}

std::filesystem::path benchmark_page(const BenchmarkRequest& request) {
  return request.out / "bench.html";
}

void write_benchmark(const BenchmarkRequest& request, const BenchmarkResult& result) {
  make_folder(request.out, "choose another `out`");
  write_file_atomically(request.out / "bench.json", to_json(request, result).dump(1) + "\n");
  io::write_png(request.out / "kinds.png", draw_kinds(result));
  io::write_png(request.out / "memory.png", draw_memory(result));
  io::write_png(request.out / "roofline.png", draw_roofline(request, result));
  write_file_atomically(benchmark_page(request), page_of(request, result));
}

}  // namespace ringlet::service
