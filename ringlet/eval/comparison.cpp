#include "ringlet/eval/comparison.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <map>
#include <set>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/data/crop.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/draw/html.h"
#include "ringlet/draw/plot.h"
#include "ringlet/eval/control_evaluation.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

/// One cell's numbers as a run of the method's.
void add_run(std::vector<Measured>& all, const Evaluation& evaluation, std::uint64_t seed) {
  const std::string run = "seed " + std::to_string(seed);
  for (const Measured& metric : evaluation.metrics) {
    auto found = std::ranges::find(all, metric.name, &Measured::name);
    if (found == all.end()) {
      all.push_back({metric.name, metric.higher_is_better, metric.interval, {}});
      found = all.end() - 1;
      found->interval.runs = 0;
      found->interval.mean = 0.0;
    }
    // Of set metrics: the sum of the means until all runs are there.
    found->interval.mean += metric.interval.mean;
    found->interval.low = std::min(found->interval.low, metric.interval.low);
    found->interval.high = std::max(found->interval.high, metric.interval.high);
    ++found->interval.runs;
    for (Sample sample : metric.samples) {
      sample.id += " of " + run;
      sample.run = run;
      found->samples.push_back(std::move(sample));
    }
  }
}

/// A run has one, so that its interval and differences are over runs alone.
void add_held_out_loss(Evaluation& evaluation, const Cell& cell) {
  if (const auto loss = held_out_loss(cell))
    evaluation.metrics.push_back(measured("held-out loss", /*higher_is_better=*/false,
                                          {{"loss", "held-out pictures", *loss}}));
}

void finish(Measured& metric) {
  if (metric.samples.empty())
    metric.interval.mean /= static_cast<double>(metric.interval.runs);
  else
    metric.interval = bootstrap_mean(metric.samples);
}

void add_costs(ComparisonRow& row, const Cell& cell) {
  const Json plan = read_json_file(cell.plan()).at("plan");
  const std::string where = cell.plan().string();
  row.parameters = json_require<std::int64_t>(plan, "parameters", where) -
                   json_value<std::int64_t>(plan, "control_parameters", 0, where);
  const Json cost = read_json_file(cell.cost());
  row.seconds += json_require<double>(cost, "seconds", cell.cost().string());
  row.peak_bytes = std::max(row.peak_bytes,
                            json_require<std::uint64_t>(cost, "peak_bytes", cell.cost().string()));
}

std::vector<Sample> of_runs(const std::vector<Sample>& samples, const std::set<std::string>& runs) {
  std::vector<Sample> chosen;
  std::ranges::copy_if(samples, std::back_inserter(chosen),
                       [&](const Sample& sample) { return runs.contains(sample.run); });
  return chosen;
}

std::set<std::string> runs_of(const std::vector<Sample>& samples) {
  std::set<std::string> runs;
  for (const Sample& sample : samples) runs.insert(sample.run);
  return runs;
}

/// Over the runs that both rows have: some may still be missing.
std::optional<PairedDifference> difference_to(const ComparisonRow& first, const Measured& metric) {
  const auto other = std::ranges::find(first.metrics, metric.name, &Measured::name);
  if (other == first.metrics.end()) return std::nullopt;
  const std::vector<Sample> mine = of_runs(metric.samples, runs_of(other->samples));
  if (mine.empty()) return std::nullopt;
  return paired_difference(mine, of_runs(other->samples, runs_of(mine)));
}

std::vector<std::string> metric_names(const std::vector<ComparisonRow>& rows) {
  std::vector<std::string> names;
  for (const ComparisonRow& row : rows)
    for (const Measured& metric : row.metrics)
      if (std::ranges::find(names, metric.name) == names.end()) names.push_back(metric.name);
  return names;
}

const Measured* find_metric(const ComparisonRow& row, const std::string& name) {
  const auto found = std::ranges::find(row.metrics, name, &Measured::name);
  return found == row.metrics.end() ? nullptr : &*found;
}

/// Of this metric, this row minus the first one; null for the first row itself and where a run is
/// missing.
const PairedDifference* difference_of(const std::vector<ComparisonRow>& rows,
                                      const ComparisonRow& row, const std::string& name) {
  const Measured* metric = find_metric(row, name);
  if (metric == nullptr || &row == &rows.front()) return nullptr;
  const auto& difference = row.to_first[static_cast<std::size_t>(metric - row.metrics.data())];
  return difference ? &*difference : nullptr;
}

/// The table's cells, heads first.
std::vector<std::vector<std::string>> table_of(const std::vector<ComparisonRow>& rows) {
  const std::vector<std::string> names = metric_names(rows);
  std::vector<std::vector<std::string>> table = {{"method", "parameters", "learning rate", "runs"}};
  for (const std::string& name : names) {
    const Measured* metric = find_metric(rows.front(), name);
    const bool higher = metric == nullptr || metric->higher_is_better;
    table.front().push_back(name + (higher ? " (higher is better)" : " (lower is better)"));
    if (metric != nullptr && !metric->samples.empty())
      table.front().push_back(name + ", beside " + rows.front().name);
  }
  table.front().insert(table.front().end(), {"training, s", "peak, MiB"});
  for (const ComparisonRow& row : rows) {
    std::vector<std::string> line = {row.name, std::to_string(row.parameters),
                                     short_number(row.learning_rate), std::to_string(row.runs)};
    for (const std::string& name : names) {
      const Measured* metric = find_metric(row, name);
      line.push_back(metric == nullptr ? "" : interval_text(metric->interval));
      const Measured* of_first = find_metric(rows.front(), name);
      if (of_first == nullptr || of_first->samples.empty()) continue;
      const PairedDifference* difference = difference_of(rows, row, name);
      line.push_back(difference == nullptr ? "" : interval_text(difference->interval));
    }
    line.push_back(short_number(row.seconds));
    line.push_back(std::to_string(row.peak_bytes >> 20));
    table.push_back(std::move(line));
  }
  return table;
}

/// By reference, the name of the first of its samples.
std::vector<std::pair<std::string, fs::path>> first_samples(const Cell& cell) {
  std::map<std::string, fs::path> samples;
  for (const auto& entry : fs::directory_iterator(cell.pictures())) {
    const fs::path name = entry.path().filename();
    const std::string reference = reference_name(name.stem().string());
    if (reference == name.stem() || name.extension() != ".png") continue;
    fs::path& sample = samples[reference];
    if (sample.empty() || name < sample) sample = name;
  }
  return {samples.begin(), samples.end()};
}

/// The pictures that a control recipe measures against, by name without extension.
std::map<std::string, fs::path> reference_pictures(const Recipe& recipe) {
  std::map<std::string, fs::path> pictures;
  const auto folder = json_value<std::string>(recipe.eval, "reference", "", "eval");
  if (recipe.kind != "control" || !fs::is_directory(folder)) return pictures;
  for (const data::Picture& picture :
       data::read_picture_folder(folder, {.captions = data::Captions::ignored}).pictures)
    pictures.emplace(picture.path.stem().string(), picture.path);
  return pictures;
}

/// How the learning rates came about.
std::string rates_note(const Recipe& recipe) {
  if (std::ranges::none_of(recipe.methods, [](const RecipeMethod& method) {
        return method.learning_rates.size() > 1;
      }))
    return "";
  return recipe.kind == "control" ? " Learning rates were chosen on pictures held out of training."
                                  : " Learning rates were chosen with other prompts.";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

}  // namespace

std::vector<ComparisonRow> comparison_rows(const Recipe& recipe, const std::vector<Cell>& cells) {
  std::vector<ComparisonRow> rows;
  for (std::size_t m = 0; m < recipe.methods.size(); ++m) {
    ComparisonRow row;
    row.name = recipe.methods[m].name;
    row.method = recipe.methods[m].method;
    for (const Cell& cell : cells) {
      if (cell.method != m || !fs::exists(cell.result())) continue;
      row.learning_rate = cell.learning_rate;
      Evaluation evaluation = read_evaluation(cell.result());
      add_held_out_loss(evaluation, cell);
      add_run(row.metrics, evaluation, cell.seed);
      add_costs(row, cell);
      ++row.runs;
    }
    if (row.runs == 0) continue;
    row.seconds /= static_cast<double>(row.runs);
    for (Measured& metric : row.metrics) finish(metric);
    const ComparisonRow& first = rows.empty() ? row : rows.front();
    std::vector<std::optional<PairedDifference>> differences;
    for (const Measured& metric : row.metrics) differences.push_back(difference_to(first, metric));
    row.to_first = std::move(differences);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string to_markdown(const std::vector<ComparisonRow>& rows) {
  if (rows.empty()) return "";
  std::string text;
  const auto table = table_of(rows);
  for (std::size_t i = 0; i < table.size(); ++i) {
    text += "| " + join(table[i], " | ") + " |\n";
    if (i > 0) continue;
    for (std::size_t n = 0; n < table[i].size(); ++n) text += "|---";
    text += "|\n";
  }
  return text;
}

std::string to_csv(const std::vector<ComparisonRow>& rows) {
  std::string text =
      "name,method,parameters,learning_rate,runs,metric,mean,low,high,samples,difference,"
      "difference_low,difference_high,seconds,peak_bytes\n";
  for (const ComparisonRow& row : rows)
    for (std::size_t i = 0; i < row.metrics.size(); ++i) {
      const Interval& interval = row.metrics[i].interval;
      text += quoted(row.name) + "," + quoted(row.method) + "," + std::to_string(row.parameters) +
              "," + exact_number(row.learning_rate) + "," + std::to_string(row.runs) + "," +
              quoted(row.metrics[i].name) + "," + exact_number(interval.mean) + "," +
              exact_number(interval.low) + "," + exact_number(interval.high) + "," +
              std::to_string(interval.samples) + ",";
      if (const auto& difference = row.to_first[i])
        text += exact_number(difference->interval.mean) + "," +
                exact_number(difference->interval.low) + "," +
                exact_number(difference->interval.high);
      else
        text += ",,";
      text += "," + exact_number(row.seconds) + "," + std::to_string(row.peak_bytes) + "\n";
    }
  return text;
}

std::vector<std::pair<std::string, io::Image>> comparison_plots(
    const std::vector<ComparisonRow>& rows) {
  std::vector<std::pair<std::string, io::Image>> plots;
  for (const std::string& name : metric_names(rows)) {
    draw::Plot plot;
    plot.title = name + " against parameters, with 95 % intervals";
    plot.x_label = "parameters of the adapter";
    plot.y_label = name;
    plot.logarithmic_x = true;
    for (const ComparisonRow& row : rows) {
      const Measured* metric = find_metric(row, name);
      if (metric == nullptr || row.parameters <= 0) continue;  // a logarithm has no place for 0
      plot.curves.push_back({row.name,
                             {{static_cast<double>(row.parameters), metric->interval.mean}},
                             {{metric->interval.low, metric->interval.high}}});
    }
    if (!plot.curves.empty()) plots.emplace_back(name, draw::draw_plot(plot));
  }
  return plots;
}

ComparisonSheet comparison_sheet(const Recipe& recipe, const std::vector<Cell>& cells) {
  constexpr std::size_t kReferences = 8;
  ComparisonSheet sheet;
  std::vector<const Cell*> chosen;  // the first cell of each method that has pictures
  for (std::size_t m = 0; m < recipe.methods.size(); ++m)
    for (const Cell& cell : cells)
      if (cell.method == m && fs::exists(cell.result())) {
        chosen.push_back(&cell);
        sheet.columns.push_back(recipe.methods[m].name);
        break;
      }
  if (chosen.empty()) return {};
  std::vector<std::pair<std::string, fs::path>> samples = first_samples(*chosen.front());
  if (samples.empty()) return {};
  samples.resize(std::min(samples.size(), kReferences));
  const auto references = reference_pictures(recipe);
  const bool all_known = std::ranges::all_of(
      samples, [&](const auto& sample) { return references.contains(sample.first); });
  if (all_known) sheet.columns.insert(sheet.columns.begin(), "reference");
  std::vector<io::Image> pictures;
  for (const auto& [reference, sample] : samples) {
    std::vector<io::Image> row;
    for (const Cell* cell : chosen) row.push_back(io::read_image(cell->pictures() / sample));
    if (all_known)
      pictures.push_back(
          data::covering_crop(io::read_image(references.at(reference)), row.front().size()).image);
    std::ranges::move(row, std::back_inserter(pictures));
  }
  sheet.image = io::image_grid(pictures, static_cast<std::int64_t>(sheet.columns.size()));
  return sheet;
}

std::string to_html(const Recipe& recipe, const std::vector<ComparisonRow>& rows,
                    const ComparisonSheet& sheet) {
  std::string body =
      "<p class=\"note\">Means over test pictures and training seeds; in brackets the 95 % "
      "interval when both are resampled." +
      rates_note(recipe) + "</p>\n<div class=\"chart\">\n<table>\n<tbody>\n";
  for (const auto& line : table_of(rows)) {
    body += "<tr>";
    for (const std::string& cell : line) body += "<td>" + draw::html_escape(cell) + "</td>";
    body += "</tr>\n";
  }
  body += "</tbody>\n</table>\n</div>\n";
  for (const auto& [name, plot] : comparison_plots(rows))
    body += "<figure>\n" + draw::html_picture(io::encode_png(plot), name + " against parameters") +
            "</figure>\n";
  if (!sheet.image.pixels.empty())
    body += "<section>\n<h2>The same samples</h2>\n<figure>\n" +
            draw::html_picture(io::encode_png(sheet.image), "samples") +
            "<figcaption>From left to right: " + draw::html_escape(join(sheet.columns)) +
            "</figcaption>\n</figure>\n</section>\n";
  return draw::html_page(recipe.title, body);
}

}  // namespace ringlet::eval
