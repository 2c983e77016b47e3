// How long a step takes on several ranks: a model, for plans.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ringlet::train {

/// A network between ranks, as each of them sees it.
struct Network {
  double bytes_per_second = 0.0;  ///< of one rank, sent and received at once
  double latency = 0.0;           ///< seconds of an empty message
};

/// Seconds of a ring all-reduce: 2 (n - 1) messages of B / n bytes, one after the other,
///
///   2 (n - 1) latency + 2 (n - 1) / n * B / bandwidth
///
/// (Thakur, Rabenseifner and Gropp 2005; Patarasuk and Yuan 2009, who show that no algorithm sends
/// fewer bytes). 0 for one rank. Additions are not counted.
double ring_all_reduce_seconds(double bytes, std::int64_t ranks, const Network& network);

/// Seconds of an all-reduce by recursive doubling: ceil(log2 n) messages of B bytes (Thakur et al.
/// 2005, section 4). Less than the ring's where there are few bytes.
double doubling_all_reduce_seconds(double bytes, std::int64_t ranks, const Network& network);

/// The quicker of the two, as MPI chooses by size.
double all_reduce_seconds(double bytes, std::int64_t ranks, const Network& network);

/// The network between `ranks` ranks, whose all-reduces of a few and of `bytes` bytes took so many
/// seconds: the ring of the larger one, the doubling of the smaller one.
Network fit_network(std::int64_t ranks, double few_seconds, double many_seconds, double bytes);

/// The parts of a step that are known.
struct StepParts {
  double rank_seconds = 0.0;    ///< of a step on one rank that has no others
  double gradient_bytes = 0.0;  ///< in fp32
  /// Ranks that compute at once without hindering each other; 0 = any number. More of them share
  /// the processors, and their steps take as much longer.
  std::int64_t side_by_side = 0;
};

struct StepPrediction {
  std::int64_t ranks = 1;
  double compute = 0.0, exchange = 0.0;  ///< seconds
  double seconds() const { return compute + exchange; }
  /// Examples per second, relative to one rank's times the number of ranks.
  double efficiency = 1.0;
};

/// A step on so many ranks, each with the same batch. Gradients are exchanged after the backward
/// pass: nothing overlaps.
StepPrediction predict_step(const StepParts& parts, std::int64_t ranks, const Network& network);

}  // namespace ringlet::train
