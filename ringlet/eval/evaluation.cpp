#include "ringlet/eval/evaluation.h"

#include <algorithm>
#include <cstdio>

#include "ringlet/core/error.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/draw/html.h"

namespace ringlet::eval {
namespace {

using Entries = std::vector<std::pair<std::string, std::string>>;

Json entries_to_json(const Entries& entries) {
  Json json = Json::object();
  for (const auto& [name, value] : entries) json[name] = value;
  return json;
}

Entries read_entries(const Json& json, const char* key, const std::string& where) {
  Entries entries;
  const Json object = json_value(json, key, Json::object(), where);
  for (const auto& [name, value] : object.items())
    entries.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
  return entries;
}

/// Throws for the first entry that both have with other values.
void check_same_protocol(const Evaluation& a, const Evaluation& b) {
  for (const auto& [name, value] : a.protocol) {
    const auto other = std::ranges::find(b.protocol, name, &Entries::value_type::first);
    if (other == b.protocol.end() || other->second == value) continue;
    throw Error(ErrorCode::mismatch, name,
                "the first run was measured with \"" + value + "\", the second with \"" +
                    other->second + "\"",
                "their results cannot be compared; measure both in the same way");
  }
}

std::string counts(const Interval& interval) {
  std::string text =
      std::to_string(interval.samples) + " samples of " + std::to_string(interval.units) + " units";
  return interval.runs > 1 ? text + ", " + std::to_string(interval.runs) + " runs" : text;
}

std::string share_above_zero(const PairedDifference& difference) {
  char text[64];
  std::snprintf(text, sizeof text, "above 0 in %.1f %% of resamples", 100.0 * difference.positive);
  return text;
}

std::string text_table(const Entries& rows) {
  std::size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : rows)
    text += name + std::string(width - name.size() + 2, ' ') + value + "\n";
  return text;
}

}  // namespace

std::string hash_of_files(std::vector<std::filesystem::path> files) {
  std::ranges::sort(files);
  files.erase(std::unique(files.begin(), files.end()), files.end());
  std::string text;
  for (const std::filesystem::path& file : files)
    text += file.filename().string() + " " + sha256_file(file) + "\n";
  return short_hash(sha256_text(text));
}

Measured measured(std::string name, bool higher_is_better, std::vector<Sample> samples) {
  const Interval interval = bootstrap_mean(samples);
  return {std::move(name), higher_is_better, interval, std::move(samples)};
}

std::string interval_text(const Interval& interval) {
  if (interval.units == 1 && interval.runs <= 1) return short_number(interval.mean);
  return short_number(interval.mean) + " [" + short_number(interval.low) + ", " +
         short_number(interval.high) + "]";
}

Json to_json(const Evaluation& evaluation) {
  Json metrics = Json::array();
  for (const Measured& metric : evaluation.metrics) {
    Json values = Json::array();
    for (const Sample& sample : metric.samples)
      values.push_back(
          {{"id", sample.id}, {"unit", sample.unit}, {"run", sample.run}, {"value", sample.value}});
    const Interval& i = metric.interval;
    metrics.push_back({{"name", metric.name},
                       {"better", metric.higher_is_better ? "higher" : "lower"},
                       {"mean", i.mean},
                       {"low", i.low},
                       {"high", i.high},
                       {"samples", i.samples},
                       {"units", i.units},
                       {"runs", i.runs},
                       {"values", values}});
  }
  return {{"kind", evaluation.kind},
          {"protocol", entries_to_json(evaluation.protocol)},
          {"settings", entries_to_json(evaluation.settings)},
          {"metrics", metrics},
          {"notes", evaluation.notes}};
}

Evaluation read_evaluation(const std::filesystem::path& file) {
  const Json json = read_json_file(file);
  const std::string where = file.string();
  Evaluation evaluation;
  evaluation.kind = json_require<std::string>(json, "kind", where);
  evaluation.protocol = read_entries(json, "protocol", where);
  evaluation.settings = read_entries(json, "settings", where);
  const auto metrics = json_require<std::vector<Json>>(json, "metrics", where);
  for (const Json& one : metrics) {
    Measured metric;
    metric.name = json_require<std::string>(one, "name", where);
    metric.higher_is_better = json_require<std::string>(one, "better", where) == "higher";
    metric.interval = {json_require<double>(one, "mean", where),
                       json_require<double>(one, "low", where),
                       json_require<double>(one, "high", where),
                       json_require<std::size_t>(one, "samples", where),
                       json_require<std::size_t>(one, "units", where),
                       json_require<std::size_t>(one, "runs", where)};
    const auto values = json_require<std::vector<Json>>(one, "values", where);
    for (const Json& value : values)
      metric.samples.push_back({json_require<std::string>(value, "id", where),
                                json_require<std::string>(value, "unit", where),
                                json_require<double>(value, "value", where),
                                json_value<std::string>(value, "run", "", where)});
    evaluation.metrics.push_back(std::move(metric));
  }
  evaluation.notes = json_value(json, "notes", std::vector<std::string>{}, where);
  return evaluation;
}

std::string to_text(const Evaluation& evaluation) {
  Entries rows;
  for (const Measured& metric : evaluation.metrics)
    rows.emplace_back(metric.name,
                      interval_text(metric.interval) + "  (" + counts(metric.interval) + ")");
  std::string text = text_table(rows);
  for (const std::string& note : evaluation.notes) text += "note: " + note + "\n";
  return text;
}

std::string to_html(const Evaluation& evaluation,
                    const std::vector<std::pair<std::string, std::string>>& pictures) {
  Entries rows;
  for (const Measured& metric : evaluation.metrics)
    rows.emplace_back(
        metric.name + (metric.higher_is_better ? " (higher is better)" : " (lower is better)"),
        interval_text(metric.interval) + "\n" + counts(metric.interval));
  std::string body = draw::html_table(rows);
  for (const std::string& note : evaluation.notes)
    body += "<p class=\"note\">" + draw::html_escape(note) + "</p>\n";
  for (const auto& [caption, png] : pictures)
    body += "<figure>\n" + draw::html_picture(png, caption) + "<figcaption>" +
            draw::html_escape(caption) + "</figcaption>\n</figure>\n";
  rows = evaluation.protocol;
  rows.insert(rows.end(), evaluation.settings.begin(), evaluation.settings.end());
  body += "<section>\n<h2>Settings</h2>\n" + draw::html_table(rows) + "</section>\n";
  return draw::html_page("ringlet eval: " + evaluation.kind, body);
}

std::vector<NamedDifference> compare(const Evaluation& a, const Evaluation& b) {
  if (a.kind != b.kind)
    throw Error(ErrorCode::mismatch, "evaluation",
                "one run is \"" + a.kind + "\", the other \"" + b.kind + "\"");
  check_same_protocol(a, b);
  std::vector<NamedDifference> differences;
  for (const Measured& metric : a.metrics) {
    const auto other = std::ranges::find(b.metrics, metric.name, &Measured::name);
    if (other == b.metrics.end() || metric.samples.empty() || other->samples.empty()) continue;
    differences.emplace_back(metric.name, paired_difference(metric.samples, other->samples));
  }
  if (differences.empty())
    throw Error(ErrorCode::mismatch, "evaluation",
                "the runs share no metric that was measured sample by sample");
  return differences;
}

Json to_json(const std::vector<NamedDifference>& differences) {
  Json json = Json::array();
  for (const auto& [metric, difference] : differences)
    json.push_back({{"metric", metric},
                    {"difference", difference.interval.mean},
                    {"low", difference.interval.low},
                    {"high", difference.interval.high},
                    {"share_above_zero", difference.positive}});
  return json;
}

std::string to_text(const std::vector<NamedDifference>& differences) {
  Entries rows;
  for (const auto& [metric, difference] : differences)
    rows.emplace_back(
        metric, interval_text(difference.interval) + "  (" + share_above_zero(difference) + ")");
  return text_table(rows);
}

std::string to_html(const std::vector<NamedDifference>& differences, const std::string& a,
                    const std::string& b) {
  Entries rows;
  for (const auto& [metric, difference] : differences)
    rows.emplace_back(metric, interval_text(difference.interval) + "\n" +
                                  share_above_zero(difference) + "\n" +
                                  counts(difference.interval));
  return draw::html_page("ringlet eval difference",
                         draw::html_table(rows) + "<section>\n<h2>Runs</h2>\n" +
                             draw::html_table({{"first", a}, {"subtracted from it", b}}) +
                             "</section>\n");
}

}  // namespace ringlet::eval
