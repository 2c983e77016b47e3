// Loss scaling: gradients of fp16 that would become zero are kept by making the loss larger.
#pragma once

#include <cstdint>

namespace ringlet::train {

/// The factor on the loss before the backward pass; its inverse goes on the gradients afterwards
/// (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2). It follows the rule and the
/// numbers of torch.amp.GradScaler: halved by a step whose gradients are not finite, which makes no
/// update, and doubled after 2,000 steps in a row without one.
class LossScale {
 public:
  /// One that is always 1.
  LossScale() = default;

  static LossScale dynamic() { return {kStart, 0}; }

  /// As it was when a checkpoint was written; a factor of 0 says that it knows of none.
  LossScale resumed(double factor, std::int64_t good_steps) const {
    return dynamic_ && factor > 0.0 ? LossScale(factor, good_steps) : *this;
  }

  bool is_dynamic() const { return dynamic_; }
  double factor() const { return factor_; }
  std::int64_t good_steps() const { return good_steps_; }  ///< since it last changed

  /// After a step whose gradients were finite or not. Returns whether the factor may have been the
  /// cause of those that were not: below 1 it cannot.
  bool update(bool finite) {
    if (!dynamic_) return false;
    if (!finite) {
      factor_ *= kBackoff;
      good_steps_ = 0;
      return factor_ >= 1.0;
    }
    if (++good_steps_ == kGrowthInterval) {
      factor_ *= kGrowth;
      good_steps_ = 0;
    }
    return false;
  }

 private:
  static constexpr double kStart = 65536.0, kGrowth = 2.0, kBackoff = 0.5;
  static constexpr std::int64_t kGrowthInterval = 2000;

  LossScale(double factor, std::int64_t good_steps)
      : dynamic_(true), factor_(factor), good_steps_(good_steps) {}

  bool dynamic_ = false;
  double factor_ = 1.0;
  std::int64_t good_steps_ = 0;
};

}  // namespace ringlet::train
