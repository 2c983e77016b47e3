// W' = W0 T + D, written once for every method.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ringlet/adapt/part.h"
#include "ringlet/adapt/plan.h"
#include "ringlet/nn/adapter.h"

namespace ringlet::adapt {

/// A transform and a residual of one layer, either of which may be missing (identity, zero).
///
/// Strength s interpolates from the frozen weight to the adapted one:
///     W_s = W0 (I + s (T - I)) + s D
/// so that s = 0 is the base, s = 1 the adapter, for transforms as well as for residuals, and
/// values outside [0, 1] extrapolate.
class TransformResidual final : public nn::Adapter {
 public:
  TransformResidual(const LayerShape& shape, std::unique_ptr<Transform> transform,
                    std::unique_ptr<Residual> residual, std::string spec);

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override;
  at::Tensor weight(const at::Tensor& w0) const override;
  Parameters parameters() const override;
  std::string spec() const override { return spec_; }

  const Transform* transform() const { return transform_.get(); }  ///< null = identity
  const Residual* residual() const { return residual_.get(); }     ///< null = zero

  double strength = 1.0;
  std::optional<Way> way;  ///< forces a way of computing; chosen by the planner when empty

 private:
  at::Tensor transformed_input(const at::Tensor& x) const;
  at::Tensor transformed_weight(const at::Tensor& w0) const;

  LayerShape shape_;
  std::unique_ptr<Transform> transform_;
  std::unique_ptr<Residual> residual_;
  std::string spec_;
};

}  // namespace ringlet::adapt
