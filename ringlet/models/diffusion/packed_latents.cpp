#include "ringlet/models/diffusion/packed_latents.h"

#include <string>

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"

namespace ringlet::models {

at::Tensor pack_latents(const at::Tensor& latents) {
  const std::int64_t height = latents.size(2), width = latents.size(3);
  if (height % 2 != 0 || width % 2 != 0)
    throw Error(ErrorCode::invalid_argument, Field("size"),
                "latents of " + std::to_string(width) + " x " + std::to_string(height) +
                    " cannot be packed by 2 x 2",
                "choose a width and a height that are multiples of 16");
  return latents.unflatten(3, {width / 2, 2})
      .unflatten(2, {height / 2, 2})  // [B, C, rows, 2, columns, 2]
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({latents.size(0), height / 2 * (width / 2), -1});
}

at::Tensor unpack_latents(const at::Tensor& packed, std::int64_t height, std::int64_t width) {
  return packed.unflatten(2, {-1, 2, 2})
      .unflatten(1, {height / 2, width / 2})  // [B, rows, columns, C, 2, 2]
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({packed.size(0), -1, height, width});
}

at::Tensor packed_positions(std::int64_t height, std::int64_t width, c10::Device device) {
  const at::TensorOptions options = at::TensorOptions(at::kFloat).device(device);
  const at::Tensor rows = at::arange(height / 2, options).unsqueeze(1).expand({-1, width / 2});
  const at::Tensor columns = at::arange(width / 2, options).unsqueeze(0).expand({height / 2, -1});
  return at::stack({at::zeros({height / 2, width / 2}, options), rows, columns}, 2).flatten(0, 1);
}

}  // namespace ringlet::models
