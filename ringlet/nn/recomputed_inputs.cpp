#include "ringlet/nn/recomputed_inputs.h"

#include <algorithm>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/StorageImpl.h>
#include <torch/csrc/autograd/custom_function.h>

namespace ringlet::nn {
namespace {

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;

c10::StorageImpl* storage_of(const at::Tensor& tensor) {
  return tensor.storage().unsafeGetStorageImpl();
}

/// The storages of what a function makes, and how it is made again.
struct Recipe final : torch::CustomClassHolder {
  TensorListFunction make;
  /// By the results' order; null pointers are those that stay.
  std::vector<WeakStorage> storages;

  bool empty() const {
    return std::ranges::all_of(storages, [](const WeakStorage& s) { return s.expired(); });
  }

  void give_memory_back() const {
    for (const WeakStorage& weak : storages)
      if (const auto storage = weak.lock())
        storage->set_data_ptr(at::DataPtr(nullptr, storage->device()));
  }

  /// A second backward pass through the same graph finds them as the first has left them.
  bool is_wanted() const {
    return std::ranges::any_of(storages, [](const WeakStorage& weak) {
      const auto storage = weak.lock();
      return storage && storage->data() == nullptr;
    });
  }

  void make_again(const std::vector<at::Tensor>& inputs) const {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> again = make(inputs);
    for (std::size_t i = 0; i < storages.size(); ++i) {
      const auto storage = storages[i].lock();
      if (!storage || storage->data() != nullptr) continue;
      c10::StorageImpl& fresh = *storage_of(again[i]);
      TORCH_CHECK(fresh.nbytes() == storage->nbytes(),
                  "a recomputed input differs from the first one in size");
      storage->swap_data_ptr(fresh);
    }
  }
};

/// The identity behind the layers that use them: in the backward pass it comes before them.
struct MakeAgain : torch::autograd::Function<MakeAgain> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::TensorList& results,
                                                const c10::intrusive_ptr<Recipe>& recipe,
                                                const std::vector<at::Tensor>* inputs) {
    context->set_materialize_grads(false);
    context->save_for_backward(*inputs);
    context->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    torch::autograd::variable_list same;
    for (const at::Tensor& result : results) same.push_back(result.detach());
    return same;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto recipe =
        c10::static_intrusive_pointer_cast<Recipe>(context->saved_data["recipe"].toCapsule());
    if (recipe->is_wanted()) recipe->make_again(context->get_saved_variables());
    gradients.resize(gradients.size() + 2);  // of the recipe and its inputs
    return gradients;
  }
};

}  // namespace

std::vector<at::Tensor> use_recomputed(const TensorListFunction& make,
                                       const std::vector<at::Tensor>& inputs,
                                       const TensorListFunction& use) {
  std::vector<at::Tensor> made = make(inputs);
  std::vector<at::Tensor> results = use(made);
  const auto asks = [](const at::Tensor& tensor) { return tensor.requires_grad(); };
  if (!c10::GradMode::is_enabled() || std::ranges::none_of(results, asks)) return results;

  const auto recipe = c10::make_intrusive<Recipe>();
  recipe->make = make;
  for (const at::Tensor& one : made) {
    const auto shares = [&one](const at::Tensor& other) {
      return other.defined() && other.storage().is_alias_of(one.storage());
    };
    const bool stays = std::ranges::any_of(inputs, shares) || std::ranges::any_of(results, shares);
    recipe->storages.push_back(stays ? WeakStorage(c10::intrusive_ptr<c10::StorageImpl>())
                                     : WeakStorage(one.storage().getWeakStorageImpl()));
  }
  made.clear();
  if (recipe->empty()) return results;  // nobody keeps them
  recipe->give_memory_back();
  std::vector<at::Tensor> kept;
  for (const at::Tensor& input : inputs)
    kept.push_back(input.defined() ? input.detach() : at::Tensor());
  return MakeAgain::apply(at::TensorList(results), recipe, &kept);
}

at::Tensor use_recomputed(const TensorFunction& make, const std::vector<at::Tensor>& inputs,
                          const std::function<at::Tensor(const at::Tensor&)>& use) {
  return use_recomputed(
             [make](const std::vector<at::Tensor>& in) {
               return std::vector<at::Tensor>{make(in)};
             },
             inputs,
             [&use](const std::vector<at::Tensor>& made) {
               return std::vector<at::Tensor>{use(made.front())};
             })
      .front();
}

}  // namespace ringlet::nn
