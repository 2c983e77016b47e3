// Numbers in eight bits: the dynamic map of Dettmers et al. 2022, "8-bit Optimizers via Block-wise
// Quantization", and blocks that share a scale.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::train {

/// Numbers that share a scale.
inline constexpr std::int64_t kBlockSize = 256;

/// 256 fp32 numbers in [-1, 1], or [0, 1] without a sign, ascending; bitsandbytes' rule. For k = 0
/// … 6 the middles of 2^k (2^(k+1) without a sign) equal parts of [0.1, 1], times 10^(k-6), with
/// either sign; and 0 and 1.
at::Tensor dynamic_map(bool with_sign);

/// Codes [n], uint8, and the blocks' largest sizes, fp32.
struct BlockCodes {
  at::Tensor codes;
  at::Tensor scales;
};

/// Codes of zeros for `count` numbers on a device.
BlockCodes block_codes(std::int64_t count, at::Device device);

/// Writes fp32 numbers [n] into codes in place: those of the map that are nearest to number /
/// scale; of two that are as near, the lower one.
void encode(const BlockCodes& codes, const at::Tensor& numbers, const at::Tensor& map);

/// fp32 [n].
at::Tensor decode(const BlockCodes& codes, const at::Tensor& map);

}  // namespace ringlet::train
