// Rows of a layer that are a layer of their own elsewhere.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::formats {

/// Consecutive output rows of a layer.
struct RowRange {
  std::int64_t begin;
  std::int64_t count;

  bool operator==(const RowRange& other) const = default;
};

std::int64_t count_of(const std::vector<RowRange>& rows);

/// Whether a tensor has all of these rows.
bool has_rows(const at::Tensor& whole, const std::vector<RowRange>& rows);

/// These rows in this order: a view where they are one range. All must be there.
at::Tensor taken_rows(const at::Tensor& whole, const std::vector<RowRange>& rows);

/// The reverse: writes `part` into these rows of `whole`.
void put_rows(const at::Tensor& whole, const std::vector<RowRange>& rows, const at::Tensor& part);

}  // namespace ringlet::formats
