#include "ringlet/train/scaling.h"

#include <algorithm>
#include <bit>

namespace ringlet::train {

double ring_all_reduce_seconds(double bytes, std::int64_t ranks, const Network& network) {
  if (ranks <= 1) return 0.0;
  const auto n = static_cast<double>(ranks);
  return 2.0 * (n - 1.0) * (network.latency + bytes / n / network.bytes_per_second);
}

double doubling_all_reduce_seconds(double bytes, std::int64_t ranks, const Network& network) {
  if (ranks <= 1) return 0.0;
  const int rounds = std::bit_width(static_cast<std::uint64_t>(ranks - 1));  // ceil(log2 n)
  return rounds * (network.latency + bytes / network.bytes_per_second);
}

double all_reduce_seconds(double bytes, std::int64_t ranks, const Network& network) {
  return std::min(ring_all_reduce_seconds(bytes, ranks, network),
                  doubling_all_reduce_seconds(bytes, ranks, network));
}

Network fit_network(std::int64_t ranks, double few_seconds, double many_seconds, double bytes) {
  const auto n = static_cast<double>(ranks);
  Network network;
  network.latency = few_seconds / doubling_all_reduce_seconds(0.0, ranks, {1.0, 1.0});
  const double moving = many_seconds - 2.0 * (n - 1.0) * network.latency;
  // What latency explains alone says nothing about the bandwidth: no more than the whole time.
  network.bytes_per_second = 2.0 * (n - 1.0) / n * bytes / (moving > 0.0 ? moving : many_seconds);
  return network;
}

StepPrediction predict_step(const StepParts& parts, std::int64_t ranks, const Network& network) {
  const double crowd =
      parts.side_by_side > 0
          ? std::max(1.0, static_cast<double>(ranks) / static_cast<double>(parts.side_by_side))
          : 1.0;
  StepPrediction step{ranks, parts.rank_seconds * crowd,
                      all_reduce_seconds(parts.gradient_bytes, ranks, network)};
  step.efficiency = parts.rank_seconds / step.seconds();
  return step;
}

}  // namespace ringlet::train
