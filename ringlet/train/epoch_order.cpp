#include "ringlet/train/epoch_order.h"

#include <utility>

namespace ringlet::train {
namespace {

std::vector<std::size_t> shuffled(std::vector<std::size_t> order, RandomStream random) {
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.uniform_int(i)]);
  return order;
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

}  // namespace ringlet::train
