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

}  // namespace ringlet::train
