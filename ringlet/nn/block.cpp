#include "ringlet/nn/block.h"

#include "ringlet/nn/offloaded_blocks.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

Block::Block(const WeightSource& source) : state_(std::make_shared<BlockState>()) {
  source.add_block(state_);
}

at::Tensor Block::run(const TensorFunction& function, const std::vector<at::Tensor>& inputs) const {
  if (!state_->offloaded) return checkpointed(function, inputs, state_->name);
  const auto brought = [state = state_, function](const std::vector<at::Tensor>& in) {
    state->offloaded->bring(*state);
    return function(in);
  };
  return recomputed(brought, inputs);
}

}  // namespace ringlet::nn
