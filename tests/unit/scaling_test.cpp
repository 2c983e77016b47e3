// The model of a step on several ranks.
#include "ringlet/train/scaling.h"

#include <cstdint>

#include <gtest/gtest.h>

namespace ringlet::train {
namespace {

constexpr double kTenGigabits = 10e9 / 8.0;

TEST(Scaling, AnAllReduceCostsWhatTheFormulasSay) {
  const Network network{kTenGigabits, 50e-6};
  EXPECT_EQ(ring_all_reduce_seconds(1e9, 1, network), 0.0);
  // 4 ranks: 6 messages of a quarter each.
  EXPECT_DOUBLE_EQ(ring_all_reduce_seconds(1e6, 4, network), 6 * (50e-6 + 0.25e6 / kTenGigabits));
  EXPECT_DOUBLE_EQ(doubling_all_reduce_seconds(1e6, 4, network), 2 * (50e-6 + 1e6 / kTenGigabits));
  EXPECT_DOUBLE_EQ(doubling_all_reduce_seconds(0, 5, network), 3 * 50e-6);
  EXPECT_DOUBLE_EQ(doubling_all_reduce_seconds(0, 1024, network), 10 * 50e-6);
  // Many bytes: a ring sends twice the buffer, however many ranks there are.
  EXPECT_NEAR(all_reduce_seconds(1e12, 1024, network) / (2e12 / kTenGigabits), 1.0, 1e-2);
  // Few bytes: a ring of 1,024 ranks would pay 2,046 latencies.
  EXPECT_LT(all_reduce_seconds(1e3, 1024, network), 11 * 50e-6);
}

TEST(Scaling, ANetworkIsFoundAgainFromItsTimes) {
  const Network network{3e9, 20e-6};
  for (const std::int64_t ranks : {2, 3, 8}) {
    const Network found = fit_network(ranks, doubling_all_reduce_seconds(0, ranks, network),
                                      ring_all_reduce_seconds(16e6, ranks, network), 16e6);
    EXPECT_NEAR(found.latency, network.latency, 1e-12) << ranks;
    EXPECT_NEAR(found.bytes_per_second / network.bytes_per_second, 1.0, 1e-9) << ranks;
  }
  // A time that the latency explains is no endless bandwidth.
  EXPECT_GT(fit_network(4, 1.0, 0.5, 1e6).bytes_per_second, 0.0);
}

TEST(Scaling, StepsTakeLongerByTheExchangeAndByACrowd) {
  const Network network{kTenGigabits, 50e-6};
  const StepParts parts{.rank_seconds = 0.5, .gradient_bytes = 3.44e9};
  const StepPrediction one = predict_step(parts, 1, network);
  EXPECT_EQ(one.seconds(), 0.5);
  EXPECT_EQ(one.efficiency, 1.0);
  const StepPrediction many = predict_step(parts, 64, network);
  EXPECT_EQ(many.compute, 0.5);
  EXPECT_DOUBLE_EQ(many.exchange, ring_all_reduce_seconds(3.44e9, 64, network));
  EXPECT_DOUBLE_EQ(many.efficiency, 0.5 / many.seconds());
  const StepParts crowded{.rank_seconds = 0.5, .gradient_bytes = 0.0, .side_by_side = 2};
  EXPECT_EQ(predict_step(crowded, 2, network).compute, 0.5);
  EXPECT_EQ(predict_step(crowded, 4, network).compute, 1.0);
}

}  // namespace
}  // namespace ringlet::train
