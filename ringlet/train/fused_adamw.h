// AdamW's update (Loshchilov and Hutter 2019, algorithm 2), without the decay.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::train {

struct AdamNumbers {
  double beta1, beta2, epsilon;
};

/// LibTorch's fused kernel. Lists of tensors of one device and one type.
class FusedAdamW {
 public:
  /// Update number `updates`, counted from 1. Optimizer::step has pulled the values to their
  /// starts, which the kernel does not know.
  void operator()(const std::vector<at::Tensor>& values, const std::vector<at::Tensor>& gradients,
                  const std::vector<at::Tensor>& exp_avg, const std::vector<at::Tensor>& exp_avg_sq,
                  double learning_rate, const AdamNumbers& numbers, std::int64_t updates);

 private:
  std::map<std::string, at::Tensor> counts_;  ///< by device
};

}  // namespace ringlet::train
