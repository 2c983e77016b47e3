// Means with confidence intervals, over units that belong together by bootstrap (Efron and
// Tibshirani 1993), over training runs by Student's t, and differences of two runs over the same
// samples.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ringlet::eval {

/// One measured number. Numbers of one unit (a subject, a test picture) are resampled together, so
/// that an interval does not count repeated measurements of one thing as many; those of one run (a
/// training seed) tell how far runs lie apart.
struct Sample {
  std::string id;    ///< what was measured, "dog/3/seed1"; unique
  std::string unit;  ///< what it belongs to; its own id where there is nothing larger
  double value = 0.0;
  std::string run = {};  ///< the training run that made it
};

struct Interval {
  double mean = 0.0;
  double low = 0.0;  ///< of the central 95 %
  double high = 0.0;
  std::size_t samples = 0;
  std::size_t units = 0;
  std::size_t runs = 0;
};

struct BootstrapOptions {
  std::uint64_t seed = 0;
  int resamples = 2000;
  double confidence = 0.95;
};

/// The mean over units of each unit's mean over runs, with the percentile interval of that number
/// when units are drawn with replacement and, where there are several runs, Student's t of the
/// runs' standard error is added: drawn with replacement, three runs would never leave their own
/// range, and intervals of 95 % would hold the mean in 85 % of the cases. The interval of one run
/// speaks of that run; with one unit as well it is the mean alone. Throws Error(invalid_argument)
/// without samples, and Error(non_finite) naming a sample that is not finite.
Interval bootstrap_mean(const std::vector<Sample>& samples, const BootstrapOptions& options = {});

/// The interval of any statistic of a set: `statistic` sees the numbers of drawn units, and first
/// all of them in order.
Interval bootstrap(std::size_t units,
                   const std::function<double(const std::vector<std::size_t>&)>& statistic,
                   const BootstrapOptions& options = {});

struct PairedDifference {
  Interval interval;      ///< of a - b
  double positive = 0.0;  ///< share of the resamples in which a is above b
};

/// Pairs by id, resampled as bootstrap_mean does. Throws Error(mismatch) that names samples which
/// only one of the runs has, or which belong to other units there.
PairedDifference paired_difference(const std::vector<Sample>& a, const std::vector<Sample>& b,
                                   const BootstrapOptions& options = {});

}  // namespace ringlet::eval
