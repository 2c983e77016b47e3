// AdamW (Loshchilov and Hutter 2019) with a decay towards where a parameter starts.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::train {

/// A tensor that training changes.
struct Trainable {
  std::string name;
  at::Tensor value;  ///< a leaf that records gradients
  /// What weight decay pulls towards: the identity start of a transform's tensor. Undefined = zero,
  /// right for residuals and ordinary weights.
  at::Tensor anchor = {};
  double rate_factor = 1.0;  ///< on the learning rate, and so on the decay
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;
};

/// The arithmetic of torch.optim.AdamW; its state is two tensors per parameter and a count.
class AdamW {
 public:
  AdamW(std::vector<Trainable> parameters, AdamWOptions options);

  /// One update from the gradients that the parameters hold, each at its factor on the rate; those
  /// without a gradient are left alone.
  void step(double learning_rate);

  /// Updates done so far.
  std::int64_t updates() const { return updates_; }

  /// The state under "exp_avg.NAME" and "exp_avg_sq.NAME"; tensors are shared, not copied.
  std::map<std::string, at::Tensor> state() const;

  /// Tells how many updates the state holds after its tensors have been filled.
  void set_updates(std::int64_t updates) { updates_ = updates; }

  const std::vector<Trainable>& parameters() const { return parameters_; }

 private:
  std::vector<Trainable> parameters_;
  AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
  std::int64_t updates_ = 0;
};

}  // namespace ringlet::train
