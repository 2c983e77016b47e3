// Which examples a batch shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ringlet/core/random.h"

namespace ringlet::train {

/// The entries of `order` that micro-batch number `micro_batch` shows: epoch after epoch, each in a
/// random order of its own (Fisher and Yates), a function of `random`, the stream's name and the
/// epoch. A batch may span two epochs.
std::vector<std::size_t> batch_rows(const std::vector<std::size_t>& order, const Random& random,
                                    std::string_view stream, std::int64_t micro_batch,
                                    std::int64_t batch_size);

/// What a batch shows of examples that lie in buckets.
struct BucketBatch {
  std::size_t bucket = 0;         ///< where all its rows lie
  std::int64_t epoch = 0;         ///< of its last row, counted from 0
  std::vector<std::size_t> rows;  ///< entries of the bucket
};

/// The same for examples of which only those of one bucket can be together; none of `buckets` is
/// empty. With one bucket it is batch_rows. With several, an epoch shows each bucket's entries in a
/// random order, in as many batches as they need, and the batches in a random order. A bucket's
/// last batch is filled up with the entries that its order begins with, again and again where they
/// are fewer than a batch: nothing is left out, and what is shown twice lies in the same bucket.
BucketBatch bucket_batch(const std::vector<std::vector<std::size_t>>& buckets, const Random& random,
                         std::string_view stream, std::int64_t micro_batch,
                         std::int64_t batch_size);

/// The examples that an epoch of bucket_batch shows, with those that fill batches up.
std::int64_t bucketed_epoch_size(const std::vector<std::int64_t>& bucket_sizes,
                                 std::int64_t batch_size);

}  // namespace ringlet::train
