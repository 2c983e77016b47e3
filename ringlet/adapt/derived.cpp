#include "ringlet/adapt/derived.h"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <utility>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/graph_task.h>

#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

/// Row i of [n, …], without autograd's knowledge that it is a view.
at::Tensor row(const at::Tensor& stacked, std::size_t i) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return stacked.select(0, static_cast<std::int64_t>(i));
}

bool learns(const at::Tensor& tensor) { return tensor.requires_grad(); }

/// What must be equal for parts that are computed together.
std::string kind_of(const std::string& name, const Tensors& from) {
  std::ostringstream key;
  key << name;
  for (const at::Tensor& tensor : from)
    key << '|' << tensor.sizes() << tensor.scalar_type() << tensor.device() << learns(tensor);
  return key.str();
}

/// Changes with the tensor's numbers, whichever way they are written.
std::uint64_t version_of(const at::Tensor& tensor) {
  return static_cast<std::uint64_t>(tensor._version()) ^
         (reinterpret_cast<std::uint64_t>(tensor.const_data_ptr()) << 16U);
}

std::vector<std::uint64_t> versions_of(const Tensors& tensors) {
  std::vector<std::uint64_t> versions;
  for (const at::Tensor& tensor : tensors) versions.push_back(version_of(tensor));
  return versions;
}

}  // namespace

Derived::Derived(std::string name, Tensors from, Equation equation)
    : state_(std::make_shared<State>(
          State{std::move(name), std::move(from), std::move(equation), nullptr, 0, 0})) {}

Tensors Derived::values() const { return values(state_->from.front().scalar_type()); }

Tensors Derived::values(at::ScalarType type) const {
  if (state_->pass != nullptr)
    if (std::optional<Tensors> shared = state_->pass->values(*state_, type))
      return *std::move(shared);
  Tensors from;
  for (const at::Tensor& tensor : state_->from) from.push_back(tensor.unsqueeze(0));
  Tensors results = state_->equation(from);
  for (at::Tensor& result : results) result = result.squeeze(0).to(type);
  return results;
}

DerivedPass::DerivedPass(const std::vector<const Derived*>& derived) {
  std::map<std::string, std::size_t> numbers;
  for (const Derived* one : derived) {
    State& state = *one->state_;
    const auto [found, is_new] = numbers.emplace(kind_of(state.name, state.from), groups_.size());
    if (is_new) groups_.emplace_back();
    Group& group = groups_[found->second];
    state.pass = this;
    state.group = found->second;
    state.place = group.members.size();
    group.members.push_back(one->state_);
  }
}

DerivedPass::~DerivedPass() { unlink(); }

void DerivedPass::unlink() {
  for (const Group& group : groups_)
    for (const auto& member : group.members)
      if (member->pass == this) member->pass = nullptr;
}

at::Tensor DerivedPass::run(const std::vector<const Derived*>& derived,
                            const std::function<at::Tensor()>& loss) {
  const std::shared_ptr<DerivedPass> pass(new DerivedPass(derived));
  at::Tensor value = loss();
  pass->forward_ = false;
  // The loss keeps the pass alive until its graph goes.
  if (value.requires_grad())
    value.register_hook([pass](const at::Tensor&) { pass->begin_backward(pass); });
  return value;
}

void DerivedPass::begin_backward(const std::shared_ptr<DerivedPass>& self) {
  if (over_)
    throw Error(ErrorCode::invalid_argument, "backward pass",
                "a second one through the same adapted layers", "compute the loss again");
  for (const Group& group : groups_)
    for (std::size_t i = 0; i < group.versions.size(); ++i)
      if (group.versions[i] != versions_of(group.members[i]->from))
        throw Error(ErrorCode::invalid_argument, "backward pass",
                    "the parameters have changed since the loss was computed",
                    "compute the loss again");
  torch::autograd::Engine::get_default_engine().queue_callback([self] { self->end_backward(); });
}

std::optional<Tensors> DerivedPass::values(const State& state, at::ScalarType type) {
  // In its forward pass and inside a backward pass, where checkpoints compute again. A graph that
  // another loss makes has its own way to the parameters.
  const bool own = forward_ || torch::autograd::get_current_graph_task_id() != -1;
  if (!own && c10::GradMode::is_enabled()) return std::nullopt;
  Group& group = groups_[state.group];
  if (!group.made.contains(type)) make(group, type);
  if (group.versions[state.place] != versions_of(state.from)) return std::nullopt;
  return group.made.at(type).leaves[state.place];
}

void DerivedPass::make(Group& group, at::ScalarType type) const {
  const at::AutoGradMode recording(true);  // off in the first pass of gradient checkpointing
  if (group.stacked.empty()) {
    for (const auto& member : group.members) group.versions.push_back(versions_of(member->from));
    for (std::size_t k = 0; k < group.members.front()->from.size(); ++k) {
      Tensors each;
      for (const auto& member : group.members) each.push_back(member->from[k].detach());
      group.stacked.push_back(
          at::stack(each).set_requires_grad(learns(group.members.front()->from[k])));
    }
  }
  Made& made = group.made[type];
  made.leaves.resize(group.members.size());
  for (const at::Tensor& result : group.members.front()->equation(group.stacked)) {
    const at::Tensor cast = result.to(type), cut = cast.detach();
    for (std::size_t i = 0; i < group.members.size(); ++i)
      made.leaves[i].push_back(row(cut, i).set_requires_grad(learns(cast)));
    made.results.push_back(cast);
  }
}

void DerivedPass::end_backward() {
  const at::NoGradGuard no_grad;
  over_ = true;
  unlink();
  for (Group& group : groups_) {
    finish(group);
    group = {};  // its memory is free for the next one
  }
}

void DerivedPass::finish(Group& group) {
  Tensors results, gradients;
  std::vector<bool> used(group.members.size(), false);  // module dropout leaves layers out
  for (auto& [type, made] : group.made)
    for (std::size_t k = 0; k < made.results.size(); ++k) {
      Tensors each;
      bool any = false;
      for (std::size_t i = 0; i < made.leaves.size(); ++i) {
        const at::Tensor gathered = made.leaves[i][k].grad();
        any = any || gathered.defined();
        used[i] = used[i] || gathered.defined();
        each.push_back(gathered.defined() ? gathered : at::zeros_like(made.leaves[i][k].detach()));
      }
      if (!any) continue;
      results.push_back(made.results[k]);
      gradients.push_back(at::stack(each));
      for (Tensors& leaves : made.leaves) leaves[k].mutable_grad().reset();
    }
  if (results.empty()) return;
  Tensors wanted;
  std::ranges::copy_if(group.stacked, std::back_inserter(wanted), learns);
  const Tensors found = torch::autograd::grad(results, wanted, gradients, /*retain_graph=*/false,
                                              /*create_graph=*/false, /*allow_unused=*/true);
  Tensors own;  // of every tensor that the equation starts from
  auto next = found.begin();
  for (const at::Tensor& stacked : group.stacked)
    own.push_back(learns(stacked) ? *next++ : at::Tensor());
  hand_on(group, used, own);
}

void DerivedPass::hand_on(const Group& group, const std::vector<bool>& used,
                          const Tensors& gradients) {
  Tensors sums, terms;
  for (std::size_t k = 0; k < gradients.size(); ++k) {
    if (!gradients[k].defined()) continue;
    const at::Tensor rows = gradients[k].contiguous();
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      if (!used[i]) continue;
      const at::Tensor& parameter = group.members[i]->from[k];
      if (parameter.grad().defined()) {
        sums.push_back(parameter.grad());
        terms.push_back(row(rows, i));
      } else {
        parameter.mutable_grad() = row(rows, i);
      }
    }
  }
  if (!sums.empty()) at::_foreach_add_(sums, terms);
}

}  // namespace ringlet::adapt
