#include "ringlet/train/epoch_order.h"

#include <numeric>
#include <string>
#include <utility>

namespace ringlet::train {
namespace {

std::vector<std::size_t> shuffled(std::vector<std::size_t> order, RandomStream random) {
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.uniform_int(i)]);
  return order;
}

std::int64_t batches_of(std::int64_t examples, std::int64_t batch_size) {
  return (examples + batch_size - 1) / batch_size;
}

/// The batches of an epoch as (bucket, number within it), bucket after bucket.
std::vector<std::pair<std::size_t, std::int64_t>> batches_in(
    const std::vector<std::vector<std::size_t>>& buckets, std::int64_t batch_size) {
  std::vector<std::pair<std::size_t, std::int64_t>> batches;
  for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
    const auto count = static_cast<std::int64_t>(buckets[bucket].size());
    for (std::int64_t i = 0; i < batches_of(count, batch_size); ++i)
      batches.emplace_back(bucket, i);
  }
  return batches;
}

}  // namespace

std::vector<std::size_t> batch_rows(const std::vector<std::size_t>& order, const Random& random,
                                    std::string_view stream, std::int64_t micro_batch,
                                    std::int64_t batch_size) {
  const auto count = static_cast<std::int64_t>(order.size());
  std::int64_t epoch = -1;
  std::vector<std::size_t> now, rows;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const std::int64_t position = micro_batch * batch_size + i;
    if (position / count != epoch) {
      epoch = position / count;
      now = shuffled(order, random.stream(stream, static_cast<std::uint64_t>(epoch)));
    }
    rows.push_back(now[static_cast<std::size_t>(position % count)]);
  }
  return rows;
}

BucketBatch bucket_batch(const std::vector<std::vector<std::size_t>>& buckets, const Random& random,
                         std::string_view stream, std::int64_t micro_batch,
                         std::int64_t batch_size) {
  if (buckets.size() == 1) {
    const auto count = static_cast<std::int64_t>(buckets.front().size());
    return {0, ((micro_batch + 1) * batch_size - 1) / count,
            batch_rows(buckets.front(), random, stream, micro_batch, batch_size)};
  }
  const auto batches = batches_in(buckets, batch_size);
  const auto count = static_cast<std::int64_t>(batches.size());
  const auto epoch = static_cast<std::uint64_t>(micro_batch / count);
  std::vector<std::size_t> turns(batches.size());
  std::iota(turns.begin(), turns.end(), std::size_t{0});
  const std::string name(stream);
  turns = shuffled(std::move(turns), random.stream(name + " of buckets", epoch));
  const auto [bucket, part] = batches[turns[static_cast<std::size_t>(micro_batch % count)]];
  const std::vector<std::size_t> entries =
      shuffled(buckets[bucket], random.stream(name, epoch, bucket + 1));
  BucketBatch batch{bucket, micro_batch / count, {}};
  for (std::int64_t i = part * batch_size; i < (part + 1) * batch_size; ++i)
    batch.rows.push_back(entries[static_cast<std::size_t>(i) % entries.size()]);
  return batch;
}

std::int64_t bucketed_epoch_size(const std::vector<std::int64_t>& bucket_sizes,
                                 std::int64_t batch_size) {
  if (bucket_sizes.size() == 1) return bucket_sizes.front();
  std::int64_t shown = 0;
  for (const std::int64_t size : bucket_sizes) shown += batches_of(size, batch_size) * batch_size;
  return shown;
}

}  // namespace ringlet::train
