#include "ringlet/nn/block.h"

#include "ringlet/nn/offloaded_blocks.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

Block::Block(const WeightSource& source) : state_(std::make_shared<BlockState>()) {
  source.add_block(state_);
}

at::Tensor Block::run(const TensorFunction& function, const std::vector<at::Tensor>& inputs) const {
  const auto one = [function](const std::vector<at::Tensor>& in) {
    return std::vector<at::Tensor>{function(in)};
  };
  return run_list(one, inputs).front();
}

std::vector<at::Tensor> Block::run_list(const TensorListFunction& function,
                                        const std::vector<at::Tensor>& inputs) const {
  if (!state_->offloaded) return checkpointed_list(function, inputs, state_->name);
  const auto brought = [state = state_, function](const std::vector<at::Tensor>& in) {
    state->offloaded->bring(*state);
    return function(in);
  };
  return recomputed_list(brought, inputs);
}

}  // namespace ringlet::nn
