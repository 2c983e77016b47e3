#include "ringlet/models/diffusion/tiling.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

namespace ringlet::models {
namespace {

/// Fades the first `extent` slices of `tile` along `axis` in from the last ones of `before`.
void blend_into(const at::Tensor& before, at::Tensor& tile, std::int64_t axis,
                std::int64_t extent) {
  extent = std::min({before.size(axis), tile.size(axis), extent});
  std::vector<std::int64_t> shape(4, 1);
  shape[static_cast<std::size_t>(axis)] = extent;
  const at::Tensor fade = (at::arange(extent, tile.options()) / extent).view(shape);
  at::Tensor start = tile.narrow(axis, 0, extent);
  start.copy_(before.narrow(axis, before.size(axis) - extent, extent) * (1 - fade) + start * fade);
}

}  // namespace

at::Tensor tiled(const at::Tensor& x, std::int64_t tile, std::int64_t up, std::int64_t down,
                 const std::function<at::Tensor(const at::Tensor&)>& code) {
  if (x.size(2) <= tile && x.size(3) <= tile) return code(x);
  // In whole latents, or tiles would not meet: one latent is `down` wide in x and `up` in the
  // result.
  const std::int64_t latents = tile / down;
  const std::int64_t overlap = latents / 4;
  const std::int64_t stride = (latents - overlap) * down;
  const std::int64_t extent = overlap * up;
  const std::int64_t kept = (latents - overlap) * up;

  std::vector<at::Tensor> above, result_rows;
  for (std::int64_t top = 0; top < x.size(2); top += stride) {
    std::vector<at::Tensor> row, cropped;
    for (std::int64_t left = 0; left < x.size(3); left += stride) {
      at::Tensor coded = code(x.slice(2, top, std::min(top + tile, x.size(2)))
                                  .slice(3, left, std::min(left + tile, x.size(3))));
      if (!above.empty()) blend_into(above[row.size()], coded, 2, extent);
      if (!row.empty()) blend_into(row.back(), coded, 3, extent);
      cropped.push_back(coded.slice(2, 0, kept).slice(3, 0, kept));
      row.push_back(std::move(coded));
    }
    result_rows.push_back(at::cat(cropped, 3));
    above = std::move(row);
  }
  return at::cat(result_rows, 2);
}

}  // namespace ringlet::models
