// A part of a network that is computed as one: what is computed again in the backward pass, and
// what is moved to host memory, is chosen block by block.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/gradient_checkpoint.h"

namespace ringlet::nn {

class WeightSource;
class OffloadedBlocks;

/// What has been chosen for a block. Its layers and tensors are those of the network's index whose
/// names begin with its own.
struct BlockState {
  std::string name;  ///< dotted, as a layer's
  /// Brings its weights to the device for every call; null where they stay there.
  std::shared_ptr<OffloadedBlocks> offloaded = nullptr;
};

/// Handle to a BlockState that is registered under its dotted name with the WeightSource.
class Block {
 public:
  explicit Block(const WeightSource& source);

  /// function(inputs) with the block's weights: checkpointed(), and recomputed() where the weights
  /// are not kept on the device for the backward pass.
  at::Tensor run(const TensorFunction& function, const std::vector<at::Tensor>& inputs) const;

  /// The same of a function with several results, all of them defined.
  std::vector<at::Tensor> run_list(const TensorListFunction& function,
                                   const std::vector<at::Tensor>& inputs) const;

 private:
  std::shared_ptr<BlockState> state_;
};

}  // namespace ringlet::nn
