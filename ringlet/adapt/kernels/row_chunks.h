// How a kernel divides rows among threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ringlet::adapt {

/// Tiles of `tile` rows, some in a chunk: by the number of rows alone, so that sums by chunk do not
/// depend on the threads.
struct RowChunks {
  std::int64_t rows, tile, length;

  RowChunks(std::int64_t all, std::int64_t rows_of_tile) : rows(all), tile(rows_of_tile) {
    constexpr std::int64_t kMost = 64;
    const std::int64_t tiles = (all + tile - 1) / tile;
    length = std::max<std::int64_t>(1, (tiles + kMost - 1) / kMost) * tile;
  }

  std::int64_t count() const { return (rows + length - 1) / length; }

  /// function(chunk, first row, rows) for the tiles of chunks [begin, end).
  template <class Function>
  void each_tile(std::int64_t begin, std::int64_t end, Function function) const {
    for (std::int64_t chunk = begin; chunk < end; ++chunk) {
      const std::int64_t last = std::min(rows, (chunk + 1) * length);
      for (std::int64_t first = chunk * length; first < last; first += tile)
        function(chunk, first, std::min(tile, last - first));
    }
  }
};

}  // namespace ringlet::adapt
