#include "ringlet/train/dynamic_map.h"

#include <cmath>
#include <vector>

#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

namespace ringlet::train {
namespace {

std::int64_t blocks_of(std::int64_t count) { return (count + kBlockSize - 1) / kBlockSize; }

at::Tensor in_blocks(const at::Tensor& numbers) {
  const std::int64_t count = numbers.numel(), blocks = blocks_of(count);
  return at::constant_pad_nd(numbers, {0, blocks * kBlockSize - count}).view({blocks, kBlockSize});
}

}  // namespace

at::Tensor dynamic_map(bool with_sign) {
  constexpr int kExponents = 7;
  std::vector<at::Tensor> parts = {at::tensor({0.0F, 1.0F})};
  for (int k = 0; k < kExponents; ++k) {
    const std::int64_t pieces = std::int64_t{1} << (with_sign ? k : k + 1);
    const at::Tensor edges = at::linspace(0.1, 1.0, pieces + 1, at::kFloat);
    const at::Tensor middles = (edges.narrow(0, 0, pieces) + edges.narrow(0, 1, pieces)) / 2.0;
    parts.push_back(middles * std::pow(10.0, k + 1 - kExponents));
    if (with_sign) parts.push_back(-parts.back());
  }
  return std::get<0>(at::cat(parts).sort());
}

BlockCodes block_codes(std::int64_t count, at::Device device) {
  const auto on = at::TensorOptions().device(device);
  return {at::zeros({count}, on.dtype(at::kByte)),
          at::zeros({blocks_of(count)}, on.dtype(at::kFloat))};
}

void encode(const BlockCodes& codes, const at::Tensor& numbers, const at::Tensor& map) {
  constexpr double kTiny = 1e-38;
  const at::Tensor blocks = in_blocks(numbers);
  codes.scales.copy_(blocks.abs().amax(-1));
  const at::Tensor scaled =
      (blocks * codes.scales.clamp_min(kTiny).reciprocal_().unsqueeze(-1)).clamp_(-1.0, 1.0);
  const std::int64_t last = map.numel() - 1;
  const at::Tensor edges = (map.narrow(0, 0, last) + map.narrow(0, 1, last)) / 2.0;
  codes.codes.copy_(
      at::bucketize(scaled.view({-1}).narrow(0, 0, numbers.numel()), edges, /*out_int32=*/true));
}

at::Tensor decode(const BlockCodes& codes, const at::Tensor& map) {
  const at::Tensor numbers = map.index_select(0, codes.codes.to(at::kInt));
  return (in_blocks(numbers) * codes.scales.unsqueeze(-1)).view({-1}).narrow(0, 0, numbers.numel());
}

}  // namespace ringlet::train
