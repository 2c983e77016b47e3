#include "ringlet/nn/gradient_checkpoint.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace ringlet::nn {
namespace {

thread_local const RecomputedBlocks* recomputed_blocks = nullptr;

struct FunctionHolder final : torch::CustomClassHolder {
  explicit FunctionHolder(TensorListFunction f) : function(std::move(f)) {}
  TensorListFunction function;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  /// `trigger` asks for a gradient, so that the backward pass comes here even when no input does.
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& trigger,
                                                const at::TensorList& inputs,
                                                const TensorListFunction& function) {
    static_cast<void>(trigger);
    std::vector<bool> needs;
    for (const at::Tensor& input : inputs) needs.push_back(input.requires_grad());
    context->saved_data["needs"] = needs;
    context->saved_data["function"] =
        c10::IValue::make_capsule(c10::make_intrusive<FunctionHolder>(function));
    context->save_for_backward(inputs.vec());
    at::NoGradGuard no_grad;
    return function(inputs.vec());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto holder = c10::static_intrusive_pointer_cast<FunctionHolder>(
        context->saved_data["function"].toCapsule());
    const std::vector<bool> needs = context->saved_data["needs"].toBoolList().vec();
    const torch::autograd::variable_list saved = context->get_saved_variables();
    std::vector<at::Tensor> inputs;
    for (std::size_t i = 0; i < saved.size(); ++i)
      inputs.push_back(saved[i].detach().set_requires_grad(needs[i]));
    std::vector<at::Tensor> outputs;
    {
      at::AutoGradMode recording(true);
      outputs = holder->function(inputs);
    }
    torch::autograd::variable_list used, gradients_of_used;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i].requires_grad() && gradients[i].defined()) {
        used.push_back(outputs[i]);
        gradients_of_used.push_back(gradients[i]);
      }
    if (!used.empty()) torch::autograd::backward(used, gradients_of_used);
    torch::autograd::variable_list result = {at::Tensor()};  // of the trigger
    for (std::size_t i = 0; i < inputs.size(); ++i)
      result.push_back(needs[i] ? inputs[i].grad() : at::Tensor());
    result.emplace_back();  // of the function
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recomputed_list(const TensorListFunction& function,
                                        const std::vector<at::Tensor>& inputs) {
  if (!c10::GradMode::is_enabled()) return function(inputs);
  const at::Tensor trigger = at::zeros({1}).set_requires_grad(true);
  // Autograd's functions take no undefined tensors.
  std::vector<at::Tensor> defined;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined()) {
      defined.push_back(inputs[i]);
      places.push_back(i);
    }
  const TensorListFunction of_defined = [function, places, count = inputs.size()](const auto& in) {
    std::vector<at::Tensor> all(count);
    for (std::size_t i = 0; i < places.size(); ++i) all[places[i]] = in[i];
    return function(all);
  };
  return Checkpoint::apply(trigger, at::TensorList(defined), of_defined);
}

GradientCheckpointing::GradientCheckpointing(bool on)
    : GradientCheckpointing(RecomputedBlocks{.all = on}) {}

GradientCheckpointing::GradientCheckpointing(RecomputedBlocks blocks)
    : blocks_(std::move(blocks)), before_(std::exchange(recomputed_blocks, &blocks_)) {}

GradientCheckpointing::~GradientCheckpointing() { recomputed_blocks = before_; }

at::Tensor checkpointed(const TensorFunction& function, const std::vector<at::Tensor>& inputs,
                        const std::string& block) {
  const bool again = recomputed_blocks != nullptr && recomputed_blocks->contains(block);
  return again ? recomputed(function, inputs) : function(inputs);
}

std::vector<at::Tensor> checkpointed_list(const TensorListFunction& function,
                                          const std::vector<at::Tensor>& inputs,
                                          const std::string& block) {
  const bool again = recomputed_blocks != nullptr && recomputed_blocks->contains(block);
  return again ? recomputed_list(function, inputs) : function(inputs);
}

at::Tensor recomputed(const TensorFunction& function, const std::vector<at::Tensor>& inputs) {
  const auto one = [function](const std::vector<at::Tensor>& in) {
    return std::vector<at::Tensor>{function(in)};
  };
  return recomputed_list(one, inputs).front();
}

}  // namespace ringlet::nn
