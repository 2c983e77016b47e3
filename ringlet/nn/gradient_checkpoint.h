// Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): parts
// of a network are computed again in the backward pass instead of being kept.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

/// Which blocks of networks are computed again. Blocks of one name in several networks are treated
/// alike.
struct RecomputedBlocks {
  bool all = false;
  std::set<std::string> names = {};  ///< without `all`; dotted, as the checkpoint's tensors

  bool any() const { return all || !names.empty(); }
  bool contains(const std::string& name) const { return all || names.contains(name); }
};

/// Switches checkpointing on for this thread while it lives: of all blocks or none, or of some.
class GradientCheckpointing {
 public:
  explicit GradientCheckpointing(bool on);
  explicit GradientCheckpointing(RecomputedBlocks blocks);
  ~GradientCheckpointing();
  GradientCheckpointing(const GradientCheckpointing&) = delete;
  GradientCheckpointing& operator=(const GradientCheckpointing&) = delete;

 private:
  const RecomputedBlocks blocks_;
  const RecomputedBlocks* before_;
};

using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// function(inputs). Where checkpointing is on for the block and gradients are recorded, only the
/// inputs are kept, and the backward pass calls `function` again; it must therefore give the same
/// result both times. Parameters that it uses get their gradients, too. Inputs may be undefined. A
/// block without a name is computed again where all are.
at::Tensor checkpointed(const TensorFunction& function, const std::vector<at::Tensor>& inputs,
                        const std::string& block = {});

/// The same of a function with several results, all of them defined.
using TensorListFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;
std::vector<at::Tensor> checkpointed_list(const TensorListFunction& function,
                                          const std::vector<at::Tensor>& inputs,
                                          const std::string& block = {});

/// checkpointed, whether checkpointing is on or not: for what is cheap to compute and large to
/// keep.
at::Tensor recomputed(const TensorFunction& function, const std::vector<at::Tensor>& inputs);
std::vector<at::Tensor> recomputed_list(const TensorListFunction& function,
                                        const std::vector<at::Tensor>& inputs);

}  // namespace ringlet::nn
