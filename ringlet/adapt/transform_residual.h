// W' = N(T_out W0 T_in + D), written once for every method.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ringlet/adapt/contraction.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/magnitude.h"
#include "ringlet/nn/adapter.h"

namespace ringlet::adapt {

/// What an adapter consists of; each may be missing.
struct Parts {
  std::vector<std::unique_ptr<Transform>> transforms;  ///< in the order in which W0 meets them
  std::unique_ptr<Residual> residual;
  std::unique_ptr<Magnitude> magnitude;
  at::Tensor bias;  ///< [out], added to the layer's bias
  double bias_scale = 1.0;
};

/// Dropout probabilities of one training step; all draws are the caller's.
struct Dropout {
  double input = 0.0;   ///< numbers of the residual's input
  double rank = 0.0;    ///< ranks of the residual
  double module = 0.0;  ///< the whole adapter of a layer

  bool any() const { return input > 0.0 || rank > 0.0 || module > 0.0; }
};

/// The rows of a batch that a pass sees, where it sees some: what is drawn for each of them is what
/// the whole batch would draw.
struct BatchRows {
  at::Tensor numbers = {};  ///< [n] in int64; undefined = the whole batch
  std::int64_t of = 0;      ///< rows of the whole
};

/// The transforms, residual, magnitude and bias of one layer:
///     W' = N(T_n … T_1 W0 T_1 … T_m + D),  b' = b + d
/// with output-side transforms on the left, input-side ones on the right, and N the rescaling of
/// a Magnitude.
///
/// Strength s interpolates from the frozen weight to the adapted one,
///     W_s = W0 + s (W' - W0)
/// so that s = 0 is the base, s = 1 the adapter, for transforms as well as for residuals, and
/// values outside [0, 1] extrapolate.
class TransformResidual final : public nn::Adapter {
 public:
  TransformResidual(const LayerShape& shape, Parts parts, Method method);

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override;
  at::Tensor weight(const at::Tensor& w0) const override;
  at::Tensor bias(const at::Tensor& b0) const override;
  Parameters parameters() const override;
  std::string spec() const override;  ///< the method as text

  const Method& method() const { return method_; }

  /// What belongs to the adapter, and to its file, but is not trained.
  Parameters constants() const;

  /// What the parts compute from their parameters alone.
  std::vector<const Derived*> derived() const;

  /// Where those of parameters() start that are not zero in the frozen network, by their names:
  /// see Transform::starts().
  Parameters starts() const;

  /// Everything that the parts keep, by the parts' own handles: parameters, starts, constants and
  /// what is none of them. On one device with the layer, nothing is copied in a forward pass.
  std::vector<at::Tensor> tensors() const;

  const Parts& parts() const { return parts_; }
  const LayerShape& shape() const { return shape_; }

  /// Nothing but a residual, which needs no output of the frozen layer.
  bool only_adds() const;

  /// How many ranks rank dropout at this rate draws for. Throws Error(unsupported) for a residual
  /// without ranks.
  std::int64_t dropped_ranks(double rate) const;

  /// Draws what the coming training step leaves out. The draw stays until the next call, so that a
  /// step that is computed twice (gradient checkpointing) is the same twice; an empty `rates`
  /// ends it. The factors of the ranks, dropped_ranks(rates.rank) many, are written to
  /// `rank_factors`: the caller, who brings those of all layers to the device at once, hands them
  /// to scale_ranks().
  void begin_step(const Dropout& rates, RandomStream random, std::span<float> rank_factors);
  void see_rows(BatchRows rows) { rows_ = std::move(rows); }  ///< on the layer's device
  void scale_ranks(const at::Tensor& factors);

  double strength = 1.0;
  std::optional<Contraction> contraction;  ///< forced; chosen by cost when empty

 private:
  template <class Ask>
  Parameters of_parts(Ask ask) const;
  Contraction choose(const at::Tensor& x) const;
  at::Tensor changed_weight(const at::Tensor& w0, bool with_residual) const;
  at::Tensor transformed(const at::Tensor& x, Side side) const;
  at::Tensor kept_inputs(const at::Tensor& x) const;
  at::Tensor add_residual(const at::Tensor& y, double s, const nn::Layer& layer,
                          const at::Tensor& x) const;
  at::Tensor without_magnitude(const nn::Layer& layer, const at::Tensor& x, double s,
                               Contraction chosen, bool with_bias) const;
  at::Tensor with_magnitude(const nn::Layer& layer, const at::Tensor& x) const;
  bool has(Side side) const;
  bool changes_bias() const;
  bool trainable() const;

  LayerShape shape_;
  Parts parts_;
  Method method_;
  at::Tensor first_parameter_;   ///< stands for all
  bool left_out_ = false;        ///< by module dropout
  double input_dropout_ = 0.0;   ///< in this step
  std::uint64_t input_key_ = 0;  ///< of this step's input dropout
  BatchRows rows_;               ///< of this step
};

}  // namespace ringlet::adapt
