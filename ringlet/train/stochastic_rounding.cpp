#include "ringlet/train/stochastic_rounding.h"

#include "ringlet/core/error.h"
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

void keep_in_bf16(const std::vector<Trainable>& parameters, at::ScalarType computed_in) {
  if (computed_in != at::kBFloat16)
    throw Error(ErrorCode::invalid_argument, Field("trained_precision"),
                "weights in bf16 are computed with in bf16", "give `precision=bf16`");
  for (const Trainable& one : parameters) {
    at::Tensor value = one.value;
    value.set_data(value.detach().to(at::kBFloat16));
  }
}

}  // namespace ringlet::train
