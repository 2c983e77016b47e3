#include "ringlet/train/stochastic_rounding.h"

#include "ringlet/nn/random_tensor.h"

namespace ringlet::train {

void round_stochastically(const at::Tensor& bf16, const at::Tensor& numbers, std::uint64_t key) {
  constexpr std::int32_t kCutOff = 0xFFFF;
  const at::Tensor bits = numbers.contiguous().view(at::kInt);
  const at::Tensor random =
      nn::random_pieces(key, numbers.numel(), numbers.device()).to(at::kInt).bitwise_and_(kCutOff);
  const at::Tensor kept = (bits + random.view(bits.sizes())).bitwise_and_(~kCutOff);
  bf16.copy_(kept.view(at::kFloat));  // exact: the low bits are zero
}

}  // namespace ringlet::train
