#include "ringlet/train/data_parallel.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

namespace ringlet::train {

bool DataParallel::any(bool own, at::Device device) const {
  if (count == 1) return own;
  std::vector<at::Tensor> sum = {at::full({1}, own ? 1.0 : 0.0, device)};
  reduce(sum);
  return sum.front().item<double>() > 0.0;
}

void DataParallel::writer_first(at::Device device, const std::function<void()>& work) const {
  // A sum over all ranks is there when all of them have asked for it.
  const auto meet = [&] {
    std::vector<at::Tensor> none = {at::zeros({1}, device)};
    if (count > 1) reduce(none);
  };
  if (!writes()) meet();
  work();
  if (writes()) meet();
}

}  // namespace ringlet::train
