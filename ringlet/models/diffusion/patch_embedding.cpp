#include "ringlet/models/diffusion/patch_embedding.h"

#include <string>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>

#include "ringlet/core/error.h"

namespace ringlet::models {
namespace {

/// [n] -> [n, width]: sines, then cosines.
at::Tensor sines_and_cosines(const at::Tensor& places, std::int64_t width) {
  const at::Tensor exponents =
      at::arange(width / 2, at::kDouble) / (static_cast<double>(width) / 2.0);
  const at::Tensor angles = at::outer(places, at::pow(10000.0, -exponents));
  return at::cat({angles.sin(), angles.cos()}, 1);
}

}  // namespace

at::Tensor position_table(std::int64_t width, std::int64_t side, std::int64_t base_side) {
  // Places in fp32, as the published tables were made.
  const at::Tensor places =
      (at::arange(side, at::kFloat) / (static_cast<double>(side) / static_cast<double>(base_side)))
          .to(at::kDouble);
  const at::Tensor along = sines_and_cosines(places, width / 2);
  const nn::Shape all = {side, side, width / 2};
  return at::cat({along.unsqueeze(0).expand(all), along.unsqueeze(1).expand(all)}, 2)
      .to(at::kFloat)
      .reshape({1, side * side, width});
}

PatchEmbedding::PatchEmbedding(const nn::WeightSource& s, const PatchEmbeddingConfig& c)
    : config_(c), proj_(s.at("proj"), c.channels, c.width, c.patch_size, {.stride = c.patch_size}) {
  const std::int64_t side = c.table_side;
  // Not learnt: it has no gradient where the network learns.
  const at::Tensor table =
      s.has("pos_embed")
          ? s.get("pos_embed", {1, side * side, c.width}).detach()
          : position_table(c.width, side, c.base_side).to(s.options().device, s.options().dtype);
  table_ = table.view({side, side, c.width});
}

at::Tensor PatchEmbedding::positions(std::int64_t rows, std::int64_t columns) const {
  const std::int64_t side = config_.table_side;
  if (rows > side || columns > side)
    throw Error(ErrorCode::invalid_argument, Field("size"),
                std::to_string(columns) + " x " + std::to_string(rows) + " tokens, and the model " +
                    "has positions for " + std::to_string(side) + " along a side",
                "make a smaller picture");
  return table_.narrow(0, (side - rows) / 2, rows)
      .narrow(1, (side - columns) / 2, columns)
      .reshape({1, rows * columns, config_.width});
}

at::Tensor PatchEmbedding::operator()(const at::Tensor& latents) const {
  const std::int64_t patch = config_.patch_size;
  if (latents.size(2) % patch != 0 || latents.size(3) % patch != 0)
    throw Error(ErrorCode::invalid_argument, Field("size"),
                "latents of " + std::to_string(latents.size(3)) + " x " +
                    std::to_string(latents.size(2)) + " are not made of patches of " +
                    std::to_string(patch) + " x " + std::to_string(patch),
                "choose a width and a height that are multiples of " + std::to_string(8 * patch));
  const at::Tensor patches = proj_(latents);
  const at::Tensor places = positions(patches.size(2), patches.size(3)).to(patches.scalar_type());
  return patches.flatten(2).transpose(1, 2) + places;
}

at::Tensor unpatch(const at::Tensor& tokens, std::int64_t rows, std::int64_t columns,
                   std::int64_t patch_size) {
  return tokens.unflatten(2, {patch_size, patch_size, -1})
      .unflatten(1, {rows, columns})
      .permute({0, 5, 1, 3, 2, 4})
      .reshape({tokens.size(0), -1, rows * patch_size, columns * patch_size});
}

}  // namespace ringlet::models
