#include "ringlet/eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/random.h"

namespace ringlet::eval {
namespace {

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Means by unit and run; absent where a run did not see a unit.
struct Table {
  std::vector<std::vector<std::optional<double>>> means;  // [unit][run]
  std::size_t runs = 0;
};

Table table_of(const std::vector<Sample>& samples) {
  std::map<std::string, std::map<std::string, std::vector<double>>> units;
  std::map<std::string, std::size_t> runs;
  for (const Sample& sample : samples) {
    if (!std::isfinite(sample.value))
      throw Error(ErrorCode::non_finite, sample.id, "its value is not a finite number",
                  "leave it out of the list, and say so");
    units[sample.unit][sample.run].push_back(sample.value);
    runs.emplace(sample.run, 0);
  }
  Table table{{}, runs.size()};
  for (const auto& [unit, by_run] : units) {
    table.means.emplace_back();
    for (const auto& run : runs) {
      const auto found = by_run.find(run.first);
      table.means.back().push_back(found == by_run.end() ? std::nullopt
                                                         : std::optional(mean_of(found->second)));
    }
  }
  return table;
}

std::vector<std::size_t> all_of(std::size_t count) {
  std::vector<std::size_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), std::size_t{0});
  return numbers;
}

std::vector<std::size_t> drawn(std::size_t count, RandomStream random) {
  std::vector<std::size_t> numbers(count);
  for (std::size_t& number : numbers) number = random.uniform_int(count);
  return numbers;
}

/// The mean of each unit over its runs.
std::vector<double> unit_means(const Table& table) {
  std::vector<double> means;
  for (const auto& by_run : table.means) {
    std::vector<double> seen;
    for (const auto& value : by_run)
      if (value) seen.push_back(*value);
    means.push_back(mean_of(seen));
  }
  return means;
}

/// The standard error of a mean over runs, from how far each lies from the units' means; 0 of one.
double standard_error_of_runs(const Table& table, const std::vector<double>& units) {
  if (table.runs < 2) return 0.0;
  double squares = 0.0;
  for (std::size_t run = 0; run < table.runs; ++run) {
    std::vector<double> away;
    for (std::size_t unit = 0; unit < units.size(); ++unit)
      if (const auto& value = table.means[unit][run]) away.push_back(*value - units[unit]);
    squares += mean_of(away) * mean_of(away);
  }
  const auto runs = static_cast<double>(table.runs);
  return std::sqrt(squares / (runs - 1.0) / runs);
}

/// A draw of Student's t (Student 1908): a normal number over the root of a chi-squared one's mean.
double student_t(RandomStream& random, std::size_t degrees) {
  const double numerator = random.normal();
  double squares = 0.0;
  for (std::size_t i = 0; i < degrees; ++i) {
    const double normal = random.normal();
    squares += normal * normal;
  }
  return numerator / std::sqrt(squares / static_cast<double>(degrees));
}

/// Means of drawn units, moved by what drawn runs would differ by; sorted.
std::vector<double> resampled_means(const Table& table, const BootstrapOptions& options) {
  const std::vector<double> units = unit_means(table);
  const double error = standard_error_of_runs(table, units);
  const Random random(options.seed);
  std::vector<double> means;
  for (int i = 0; i < options.resamples; ++i) {
    const auto number = static_cast<std::uint64_t>(i);
    double sum = 0.0;
    for (const std::size_t unit : drawn(units.size(), random.stream("units", number)))
      sum += units[unit];
    RandomStream of_runs = random.stream("runs", number);
    means.push_back(sum / static_cast<double>(units.size()) +
                    (error == 0.0 ? 0.0 : error * student_t(of_runs, table.runs - 1)));
  }
  std::ranges::sort(means);
  return means;
}

/// Linear interpolation between the sorted values, as NumPy's default.
double quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

Interval interval_of(double mean, const std::vector<double>& resampled, double confidence) {
  const double outside = (1.0 - confidence) / 2.0;
  return {mean, quantile(resampled, outside), quantile(resampled, 1.0 - outside)};
}

Interval interval_of(const std::vector<Sample>& samples, const Table& table,
                     const std::vector<double>& resampled, double confidence) {
  Interval interval = interval_of(mean_of(unit_means(table)), resampled, confidence);
  interval.samples = samples.size();
  interval.units = table.means.size();
  interval.runs = table.runs;
  return interval;
}

void check(const BootstrapOptions& options) {
  if (options.resamples < 1 || !(options.confidence > 0.0 && options.confidence < 1.0))
    throw Error(ErrorCode::invalid_argument, "evaluation",
                "a bootstrap needs at least one resample and a confidence between 0 and 1");
}

void check(const std::vector<Sample>& samples, const BootstrapOptions& options) {
  if (samples.empty())
    throw Error(ErrorCode::invalid_argument, "evaluation", "there are no samples to average");
  check(options);
}

std::map<std::string, const Sample*> by_id(const std::vector<Sample>& samples) {
  std::map<std::string, const Sample*> found;
  for (const Sample& sample : samples)
    if (!found.emplace(sample.id, &sample).second)
      throw Error(ErrorCode::mismatch, sample.id, "was measured twice in one run");
  return found;
}

[[noreturn]] void refuse_lone(const std::string& id, const char* which) {
  throw Error(ErrorCode::mismatch, id, std::string("only the ") + which + " run has this sample",
              "compare runs over the same list of samples");
}

}  // namespace

Interval bootstrap_mean(const std::vector<Sample>& samples, const BootstrapOptions& options) {
  check(samples, options);
  const Table table = table_of(samples);
  return interval_of(samples, table, resampled_means(table, options), options.confidence);
}

Interval bootstrap(std::size_t units,
                   const std::function<double(const std::vector<std::size_t>&)>& statistic,
                   const BootstrapOptions& options) {
  check(options);
  if (units == 0)
    throw Error(ErrorCode::invalid_argument, "evaluation", "there is nothing to measure");
  std::vector<double> values;
  for (int i = 0; i < options.resamples; ++i)
    values.push_back(statistic(
        drawn(units, Random(options.seed).stream("units", static_cast<std::uint64_t>(i)))));
  std::ranges::sort(values);
  Interval interval = interval_of(statistic(all_of(units)), values, options.confidence);
  interval.samples = interval.units = units;
  interval.runs = 1;
  return interval;
}

PairedDifference paired_difference(const std::vector<Sample>& a, const std::vector<Sample>& b,
                                   const BootstrapOptions& options) {
  check(a, options);
  const auto first = by_id(a), second = by_id(b);
  std::vector<Sample> differences;
  for (const auto& [id, sample] : first) {
    const auto partner = second.find(id);
    if (partner == second.end()) refuse_lone(id, "first");
    if (partner->second->unit != sample->unit)
      throw Error(ErrorCode::mismatch, id,
                  "belongs to \"" + sample->unit + "\" in the first run and to \"" +
                      partner->second->unit + "\" in the second",
                  "compare runs over the same subjects and prompts");
    differences.push_back({id, sample->unit, sample->value - partner->second->value, sample->run});
  }
  for (const auto& [id, sample] : second)
    if (!first.contains(id)) refuse_lone(id, "second");
  const Table table = table_of(differences);
  const std::vector<double> means = resampled_means(table, options);
  const auto above = means.end() - std::ranges::upper_bound(means, 0.0);
  return {interval_of(differences, table, means, options.confidence),
          static_cast<double>(above) / static_cast<double>(means.size())};
}

}  // namespace ringlet::eval
