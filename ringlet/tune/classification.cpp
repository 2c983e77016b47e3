#include "ringlet/tune/classification.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include "ringlet/tune/examples.h"

namespace ringlet::tune {

at::Tensor Classification::loss(std::span<const std::size_t> rows) const {
  const at::Tensor said = scores(Part::train, rows);
  return at::cross_entropy_loss(
      said, at::tensor(classes(Part::train, rows), at::kLong).to(said.device()));
}

std::vector<Score> Classification::evaluate() const {
  constexpr std::size_t kBatch = 64;
  double right = 0.0, loss = 0.0;
  in_batches(held_out(), kBatch, [&](const std::vector<std::size_t>& rows) {
    const at::Tensor said = scores(Part::held_out, rows);
    const at::Tensor wanted =
        at::tensor(classes(Part::held_out, rows), at::kLong).to(said.device());
    right += said.argmax(1).eq(wanted).sum().item<double>();
    loss += at::cross_entropy_loss(said, wanted).item<double>() * static_cast<double>(rows.size());
  });
  const auto count = static_cast<double>(held_out());
  return {{"accuracy", true, right / count}, {"loss", false, loss / count}};
}

}  // namespace ringlet::tune
