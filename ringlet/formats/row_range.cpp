#include "ringlet/formats/row_range.h"

#include <algorithm>
#include <numeric>

#include <ATen/ops/cat.h>

namespace ringlet::formats {

std::int64_t count_of(const std::vector<RowRange>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0},
                         [](std::int64_t sum, const RowRange& range) { return sum + range.count; });
}

bool has_rows(const at::Tensor& whole, const std::vector<RowRange>& rows) {
  return whole.dim() > 0 && std::ranges::all_of(rows, [&](const RowRange& range) {
           return range.begin >= 0 && range.begin + range.count <= whole.size(0);
         });
}

at::Tensor taken_rows(const at::Tensor& whole, const std::vector<RowRange>& rows) {
  std::vector<at::Tensor> parts;
  for (const RowRange& range : rows) parts.push_back(whole.narrow(0, range.begin, range.count));
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

void put_rows(const at::Tensor& whole, const std::vector<RowRange>& rows, const at::Tensor& part) {
  std::int64_t begin = 0;
  for (const RowRange& range : rows) {
    at::Tensor place = whole.narrow(0, range.begin, range.count);
    place.copy_(part.narrow(0, begin, range.count).view(place.sizes()));
    begin += range.count;
  }
}

}  // namespace ringlet::formats
