// The adapters of one training run or file: one per targeted layer, built, attached and merged
// together.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/adapt/transform_residual.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {

/// A layer and the method that changes it.
struct Assignment {
  Target target;
  Method method;
};

/// Owns the parameters of adapters on a number of layers, mostly of one method. While it is
/// attached, the layers compute with them; several sets may be attached to the same layers at once,
/// whose weights are then
///     W0 + sum_k s_k (W_k - W0)
/// The frozen weights are never written, so that detaching restores the base bit for bit.
/// Attaching and detaching must not run beside a forward pass of the same network.
class AdapterSet {
 public:
  struct Entry {
    Target target;
    std::shared_ptr<TransformResidual> adapter;
  };

  /// What the set adds to a small tensor.
  struct TensorChange {
    TensorTarget target;
    at::Tensor difference;  ///< fp32
  };

  /// One adapter per target at its neutral start, trainable and not attached; parameters are fp32
  /// and on their layer's device. An adapter's random numbers depend on the seed and on its layer's
  /// full name. Throws Error(invalid_argument) for no target or the same one twice.
  static AdapterSet create(const Method& method, std::span<const Target> targets,
                           FactorTable factors, const Random& random);

  /// The same with a method for each layer. With `load` the parameters will be overwritten by those
  /// of a file: they need not be a start, and methods without a neutral one are allowed.
  /// `tensors` may be changed besides, by differences that start at zero; they are not trained.
  static AdapterSet create(std::span<const Assignment> assignments, FactorTable factors,
                           const Random& random, bool load = false,
                           std::span<const TensorTarget> tensors = {});

  AdapterSet(AdapterSet&& other) noexcept;
  AdapterSet& operator=(AdapterSet&& other) noexcept;
  ~AdapterSet();  ///< detaches

  /// Puts the adapters into their layers' slots, beside those of other sets.
  void attach();
  /// Takes them out again; a slot that no other set fills is empty: exactly the base operation.
  void detach() noexcept;
  bool attached() const { return attached_; }

  /// Strength of all adapters: 0 is the base, 1 the adapter. Throws Error(invalid_argument) unless
  /// it is finite.
  void set_strength(double strength);
  double strength() const { return strength_; }

  /// Strengths of blocks, as factors on that of all: of the entries whose pattern (see
  /// TargetOptions) matches a layer, the last one counts. Throws Error(invalid_argument) for a
  /// pattern that matches no layer.
  void set_block_strengths(const std::vector<std::pair<std::string, double>>& blocks);

  /// Whether the parameters ask for gradients.
  void set_trainable(bool trainable);

  /// Draws what one training step leaves out, a function of `random`, the step and each layer's
  /// name; rates of zero end it. Throws as TransformResidual::dropped_ranks.
  /// `rows`: those of the batch that are seen, on the CPU.
  void begin_step(const Dropout& rates, const Random& random, std::uint64_t step,
                  const BatchRows& rows = {}) const;

  /// loss(), the forward pass of one training step (or micro-batch), with what the parts compute
  /// from their parameters computed once for all layers that are alike: see DerivedPass. Its
  /// backward pass comes before the parameters change. Without this, each layer computes for
  /// itself; the numbers are the same but for rounding. Gradients arrive in the parameters' grad();
  /// torch::autograd::grad does not see them.
  at::Tensor pass(const std::function<at::Tensor()>& loss) const;

  /// Every parameter by "component.dotted.path.part", in the order of entries().
  Parameters parameters() const;
  /// Where the parameters start that are not zero in the frozen network, by their names: what
  /// weight decay pulls towards (Transform::starts).
  Parameters starts() const;
  /// Parameters and what else belongs in a file.
  Parameters stored() const;
  std::int64_t parameter_count() const;

  /// What merging at the present strength writes, by "component.dotted.path.weight", or ".bias":
  /// computed in fp32 (fp64 for fp64 weights), then in the frozen weight's type, no gradient.
  std::map<std::string, at::Tensor> merged_weights() const;

  const Method& method() const { return method_; }  ///< of most layers
  const FactorTable& factors() const { return factors_; }
  const std::vector<Entry>& entries() const { return entries_; }  ///< by component, then name
  const std::vector<TensorChange>& tensor_changes() const { return tensor_changes_; }

 private:
  explicit AdapterSet(FactorTable factors) : factors_(std::move(factors)) {}

  Method method_;
  FactorTable factors_;
  void show_tensor_changes() const;

  std::vector<Entry> entries_;
  std::vector<TensorChange> tensor_changes_;
  // Its address tells this set's changes from those of others, wherever the set is moved.
  std::unique_ptr<char> identity_ = std::make_unique<char>();
  double strength_ = 1.0;
  bool attached_ = false;
};

/// The weights that merging several sets together writes; see AdapterSet::merged_weights. Layers
/// that only some of them change are included.
std::map<std::string, at::Tensor> merged_weights(std::span<const AdapterSet* const> sets);

}  // namespace ringlet::adapt
