#include "ringlet/train/epoch_order.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace ringlet::train {
namespace {

using Buckets = std::vector<std::vector<std::size_t>>;

const Buckets kBuckets = {{0, 1, 2, 3, 4}, {5}, {6, 7, 7}};

TEST(BucketBatch, AnEpochShowsEverythingAndFillsShortBatchesFromTheirBucket) {
  constexpr std::int64_t kBatch = 2, kBatches = 3 + 1 + 2;
  EXPECT_EQ(bucketed_epoch_size({5, 1, 3}, kBatch), kBatch * kBatches);
  std::set<std::vector<std::size_t>> orders;
  for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
    std::map<std::size_t, int> shown;
    std::vector<std::size_t> order;
    for (std::int64_t n = 0; n < kBatches; ++n) {
      const BucketBatch batch =
          bucket_batch(kBuckets, Random(9), "order", epoch * kBatches + n, kBatch);
      EXPECT_EQ(batch.epoch, epoch);
      ASSERT_EQ(batch.rows.size(), 2u);
      for (const std::size_t row : batch.rows) {
        const auto& bucket = kBuckets.at(batch.bucket);
        EXPECT_NE(std::ranges::find(bucket, row), bucket.end());
        ++shown[row];
        order.push_back(row);
      }
    }
    orders.insert(order);
    EXPECT_EQ(shown.size(), 8u);  // all of them
    EXPECT_EQ(shown[5], 2);       // alone in its bucket
    EXPECT_EQ(shown[0] + shown[1] + shown[2] + shown[3] + shown[4], 6);
    EXPECT_EQ(shown[6] + shown[7], 4);
  }
  EXPECT_EQ(orders.size(), 5u);
}

TEST(BucketBatch, IsAFunctionOfItsNumber) {
  std::vector<std::vector<std::size_t>> first;
  for (std::int64_t n = 0; n < 20; ++n)
    first.push_back(bucket_batch(kBuckets, Random(9), "order", n, 3).rows);
  for (std::int64_t n = 19; n >= 0; --n)
    EXPECT_EQ(bucket_batch(kBuckets, Random(9), "order", n, 3).rows,
              first[static_cast<std::size_t>(n)]);
  EXPECT_NE(bucket_batch(kBuckets, Random(8), "order", 0, 3).rows, first[0]);
}

TEST(BucketBatch, OneBucketIsTheOrderWithoutBuckets) {
  const std::vector<std::size_t> order = {0, 1, 2, 2, 3};
  for (std::int64_t n = 0; n < 12; ++n)
    EXPECT_EQ(bucket_batch({order}, Random(1), "order", n, 2).rows,
              batch_rows(order, Random(1), "order", n, 2));
  EXPECT_EQ(bucket_batch({order}, Random(1), "order", 4, 2).epoch, 1);
  EXPECT_EQ(bucketed_epoch_size({5}, 2), 5);
}

}  // namespace
}  // namespace ringlet::train
