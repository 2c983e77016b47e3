#include "ringlet/adapt/set/adapter_set.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <tuple>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "ringlet/adapt/build.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::adapt {
namespace {

/// The term as an adapter that only adds to the frozen layer's output, or null.
const TransformResidual* residual_alone(const nn::Adapter& term) {
  const auto* adapter = dynamic_cast<const TransformResidual*>(&term);
  return adapter != nullptr && adapter->only_adds() && adapter->parts().residual ? adapter
                                                                                 : nullptr;
}

/// Several adapters in one slot: W0 + sum_k (W_k - W0), where each W_k has its strength in it.
class SumAdapter final : public nn::Adapter {
 public:
  explicit SumAdapter(std::shared_ptr<nn::Adapter> first) { terms_.push_back(std::move(first)); }

  void add(std::shared_ptr<nn::Adapter> term) { terms_.push_back(std::move(term)); }
  void remove(const nn::Adapter* term) noexcept {
    std::erase_if(terms_, [term](const auto& each) { return each.get() == term; });
  }
  const std::vector<std::shared_ptr<nn::Adapter>>& terms() const { return terms_; }

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override;
  at::Tensor weight(const at::Tensor& w0) const override;
  at::Tensor bias(const at::Tensor& b0) const override;
  Parameters parameters() const override;
  std::string spec() const override;

 private:
  std::vector<std::shared_ptr<nn::Adapter>> terms_;
};

at::Tensor SumAdapter::forward(const nn::Layer& layer, const at::Tensor& x) const {
  // The first term with a transform brings the frozen layer's output along, residuals need none of
  // it: the frozen layer runs once unless there are two transforms.
  at::Tensor y, base;
  for (const auto& term : terms_) {
    if (residual_alone(*term) != nullptr) continue;
    const at::Tensor adapted = term->forward(layer, x);
    if (!y.defined()) {
      y = adapted;
      continue;
    }
    if (!base.defined()) base = layer.base(x);
    y = y + (adapted - base);
  }
  if (!y.defined()) y = layer.base(x);
  for (const auto& term : terms_) {
    const TransformResidual* adapter = residual_alone(*term);
    if (adapter != nullptr && adapter->strength != 0.0)
      y = y + adapter->strength * adapter->parts().residual->forward(layer, x);
  }
  return y;
}

at::Tensor SumAdapter::weight(const at::Tensor& w0) const {
  const at::Tensor wide = w0.scalar_type() == at::kDouble ? w0 : w0.to(at::kFloat);
  at::Tensor w = terms_.front()->weight(wide);
  for (std::size_t k = 1; k < terms_.size(); ++k) w = w + (terms_[k]->weight(wide) - wide);
  return w.to(w0.scalar_type());
}

at::Tensor SumAdapter::bias(const at::Tensor& b0) const {
  at::Tensor b = b0;
  for (const auto& term : terms_) b = term->bias(b);  // each one only adds
  return b;
}

Parameters SumAdapter::parameters() const {
  Parameters named;
  for (std::size_t k = 0; k < terms_.size(); ++k)
    for (const auto& [name, tensor] : terms_[k]->parameters())
      named.emplace_back(std::to_string(k) + "." + name, tensor);
  return named;
}

std::string SumAdapter::spec() const {
  std::vector<std::string> specs;
  for (const auto& term : terms_) specs.push_back(term->spec());
  return join(specs, " & ");
}

/// Moves tensors to the devices of their layers. Layers that share a storage share it there, too.
class Mover {
 public:
  void move(const at::Tensor& tensor, at::Device device) {
    if (!tensor.defined() || tensor.device() == device) return;
    auto& [from, there] = moved_[{tensor.storage().unsafeGetStorageImpl(), device.str()}];
    if (!there.defined()) {
      from = tensor.storage();  // keeps its address
      const auto numbers = static_cast<std::int64_t>(from.nbytes() / tensor.element_size());
      there = tensor.detach().as_strided({numbers}, {1}, 0).to(device);
    }
    tensor.set_data(there.as_strided(tensor.sizes(), tensor.strides(), tensor.storage_offset()));
  }

 private:
  std::map<std::pair<const void*, std::string>, std::pair<c10::Storage, at::Tensor>> moved_;
};

using Slot = std::shared_ptr<nn::Adapter>;

void add_to_slot(Slot& slot, Slot adapter) {
  if (!slot) {
    slot = std::move(adapter);
    return;
  }
  auto sum = std::dynamic_pointer_cast<SumAdapter>(slot);
  if (!sum) {
    sum = std::make_shared<SumAdapter>(slot);
    slot = sum;
  }
  sum->add(std::move(adapter));
}

/// Allocates nothing, so that destructors may call it.
void remove_from_slot(Slot& slot, const nn::Adapter* adapter) noexcept {
  if (slot.get() == adapter) {
    slot.reset();
  } else if (auto* sum = dynamic_cast<SumAdapter*>(slot.get())) {
    sum->remove(adapter);
    if (sum->terms().size() > 1) return;
    Slot last = sum->terms().front();  // a copy: the sum ends with the assignment
    slot = std::move(last);
  }
}

}  // namespace

AdapterSet AdapterSet::create(const Method& method, std::span<const Target> targets,
                              FactorTable factors, const Random& random) {
  std::vector<Assignment> assignments;
  for (const Target& target : targets) assignments.push_back({target, method});
  return create(assignments, std::move(factors), random);
}

AdapterSet AdapterSet::create(std::span<const Assignment> assignments, FactorTable factors,
                              const Random& random, bool load,
                              std::span<const TensorTarget> tensors) {
  if (assignments.empty() && tensors.empty())
    throw Error(ErrorCode::invalid_argument, "adapter", "there is no layer to adapt");
  std::vector<Assignment> sorted(assignments.begin(), assignments.end());
  const auto key = [](const Assignment& one) {
    return std::tie(one.target.component, one.target.name);
  };
  std::ranges::sort(sorted, {}, key);
  const auto twice = std::ranges::adjacent_find(sorted, {}, key);
  if (twice != sorted.end())
    throw Error(ErrorCode::invalid_argument, twice->target.full_name(), "would be adapted twice");

  AdapterSet set(std::move(factors));
  std::map<std::string, SharedContext> shared;  // by component, as PEFT, which adapts one at a time
  std::vector<std::pair<const Method*, std::int64_t>> counts;
  std::int64_t most = 0;
  for (const auto& [target, method] : sorted) {
    shared[target.component].include(LayerShape::of(target.layer->shape()));
    shared[target.component].load = load;
    const auto same = [&method = method](const auto& one) { return *one.first == method; };
    auto count = std::ranges::find_if(counts, same);
    if (count == counts.end()) count = counts.emplace(counts.end(), &method, 0);
    if (++count->second > most) set.method_ = method;
    most = std::max(most, count->second);
  }
  nn::with_ringlet_errors("adapter", [&] {
    Mover mover;
    for (auto& [target, method] : sorted) {
      auto adapter = build_adapter(method, *target.layer, set.factors_, random, target.full_name(),
                                   shared.at(target.component));
      for (const at::Tensor& tensor : adapter->tensors())
        mover.move(tensor, target.layer->device());
      set.entries_.push_back({std::move(target), std::move(adapter)});
    }
    for (const TensorTarget& target : tensors)
      set.tensor_changes_.push_back(
          {target, at::zeros_like(target.tensor, at::TensorOptions(at::kFloat))});
  });
  return set;
}

AdapterSet::AdapterSet(AdapterSet&& other) noexcept
    : method_(std::move(other.method_)),
      factors_(std::move(other.factors_)),
      entries_(std::exchange(other.entries_, {})),
      tensor_changes_(std::exchange(other.tensor_changes_, {})),
      identity_(std::move(other.identity_)),
      strength_(other.strength_),
      attached_(std::exchange(other.attached_, false)) {}

AdapterSet& AdapterSet::operator=(AdapterSet&& other) noexcept {
  if (this == &other) return *this;
  detach();
  method_ = std::move(other.method_);
  factors_ = std::move(other.factors_);
  entries_ = std::exchange(other.entries_, {});
  tensor_changes_ = std::exchange(other.tensor_changes_, {});
  identity_ = std::move(other.identity_);
  strength_ = other.strength_;
  attached_ = std::exchange(other.attached_, false);
  return *this;
}

AdapterSet::~AdapterSet() { detach(); }

void AdapterSet::attach() {
  if (attached_) return;
  attached_ = true;  // first, so that detach() clears up when an allocation fails half-way
  try {
    for (const Entry& entry : entries_) add_to_slot(entry.target.layer->adapter, entry.adapter);
    show_tensor_changes();
  } catch (const std::exception& problem) {
    detach();
    throw nn::to_error(problem, "adapter");
  }
}

void AdapterSet::show_tensor_changes() const {
  for (const auto& [target, difference] : tensor_changes_)
    target.slots->set(target.tensor, identity_.get(), strength_ * difference);
}

void AdapterSet::detach() noexcept {
  if (!attached_) return;
  for (const auto& [target, difference] : tensor_changes_)
    target.slots->remove(target.tensor, identity_.get());
  for (const Entry& entry : entries_)
    remove_from_slot(entry.target.layer->adapter, entry.adapter.get());
  attached_ = false;
}

void AdapterSet::set_strength(double strength) {
  if (!std::isfinite(strength))
    throw Error(ErrorCode::invalid_argument, "strength", "must be a finite number");
  strength_ = strength;
  for (const Entry& entry : entries_) entry.adapter->strength = strength;
  if (attached_) show_tensor_changes();
}

void AdapterSet::set_block_strengths(const std::vector<std::pair<std::string, double>>& blocks) {
  const Field kOption("block_strength");
  for (const auto& [pattern, factor] : blocks) {
    if (!std::isfinite(factor))
      throw Error(ErrorCode::invalid_argument, kOption, "must be a finite number");
    bool any = false;
    for (const Entry& entry : entries_) {
      if (!pattern_matches(pattern, entry.target.full_name(), kOption)) continue;
      entry.adapter->strength = strength_ * factor;
      any = true;
    }
    if (!any)
      throw Error(ErrorCode::invalid_argument, kOption,
                  "\"" + pattern + "\" matches none of the adapter's layers",
                  "they are named like " + entries_.front().target.full_name());
  }
}

void AdapterSet::set_trainable(bool trainable) {
  for (const auto& [name, tensor] : parameters()) tensor.set_requires_grad(trainable);
}

namespace {

/// A tensor of the CPU, with one copy for each device that asks.
class OnDevices {
 public:
  explicit OnDevices(at::Tensor tensor) : tensor_(std::move(tensor)) {}
  at::Tensor on(at::Device device) {
    if (!tensor_.defined()) return tensor_;
    for (const at::Tensor& copy : copies_)
      if (copy.device() == device) return copy;
    return copies_.emplace_back(nn::to_device(tensor_, device));
  }

 private:
  at::Tensor tensor_;
  std::vector<at::Tensor> copies_;
};

}  // namespace

void AdapterSet::begin_step(const Dropout& rates, const Random& random, std::uint64_t step,
                            const BatchRows& rows) const {
  std::int64_t ranks = 0;
  for (const Entry& entry : entries_) ranks += entry.adapter->dropped_ranks(rates.rank);
  at::Tensor factors = at::empty({ranks}, at::kFloat);
  std::span<float> left(factors.data_ptr<float>(), static_cast<std::size_t>(ranks));
  for (const Entry& entry : entries_) {
    const auto own = static_cast<std::size_t>(entry.adapter->dropped_ranks(rates.rank));
    entry.adapter->begin_step(rates, random.stream("dropout " + entry.target.full_name(), step),
                              left.first(own));
    left = left.subspan(own);
  }
  OnDevices all_factors(factors), all_rows(rows.numbers);
  std::int64_t first = 0;
  for (const Entry& entry : entries_) {
    const std::int64_t own = entry.adapter->dropped_ranks(rates.rank);
    const at::Device device = entry.target.layer->device();
    entry.adapter->scale_ranks(own > 0 ? all_factors.on(device).narrow(0, first, own)
                                       : at::Tensor());
    // Nothing but input dropout draws for rows.
    entry.adapter->see_rows(rates.input > 0.0 ? BatchRows{all_rows.on(device), rows.of}
                                              : BatchRows());
    first += own;
  }
}

at::Tensor AdapterSet::pass(const std::function<at::Tensor()>& loss) const {
  std::vector<const Derived*> all;
  for (const Entry& entry : entries_)
    std::ranges::copy(entry.adapter->derived(), std::back_inserter(all));
  return DerivedPass::run(all, loss);
}

Parameters AdapterSet::stored() const {
  Parameters all = parameters();
  for (const Entry& entry : entries_)
    for (const auto& [name, tensor] : entry.adapter->constants())
      all.emplace_back(entry.target.full_name() + "." + name, tensor);
  for (const auto& [target, difference] : tensor_changes_)
    all.emplace_back(target.full_name() + ".difference", difference);
  return all;
}

Parameters AdapterSet::parameters() const {
  Parameters all;
  for (const Entry& entry : entries_)
    for (const auto& [name, tensor] : entry.adapter->parameters())
      all.emplace_back(entry.target.full_name() + "." + name, tensor);
  return all;
}

Parameters AdapterSet::starts() const {
  Parameters all;
  for (const Entry& entry : entries_)
    for (const auto& [name, tensor] : entry.adapter->starts())
      all.emplace_back(entry.target.full_name() + "." + name, tensor);
  return all;
}

std::int64_t AdapterSet::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : parameters()) count += tensor.numel();
  return count;
}

std::map<std::string, at::Tensor> AdapterSet::merged_weights() const {
  const AdapterSet* const self = this;
  return adapt::merged_weights({&self, 1});
}

namespace {

void merge_tensor_changes(std::span<const AdapterSet* const> sets,
                          std::map<std::string, at::Tensor>& merged) {
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> sums;  // base, fp32 sum
  for (const AdapterSet* set : sets)
    for (const auto& [target, difference] : set->tensor_changes()) {
      auto& [base, sum] = sums[target.full_name()];
      if (!base.defined()) sum = (base = target.slots->base(target.tensor)).to(at::kFloat);
      sum = sum + set->strength() * difference;
    }
  for (const auto& [name, pair] : sums)
    merged.emplace(name, pair.second.to(pair.first.scalar_type()));
}

}  // namespace

std::map<std::string, at::Tensor> merged_weights(std::span<const AdapterSet* const> sets) {
  return nn::with_ringlet_errors("merge", [&] {
    const at::NoGradGuard no_grad;
    std::map<std::string, std::pair<const nn::Layer*, Slot>> slots;
    std::map<const nn::Layer*, std::string> names;  // adapters may know one layer by several
    for (const AdapterSet* set : sets)
      for (const AdapterSet::Entry& entry : set->entries()) {
        const nn::Layer* const own = entry.target.layer.get();
        auto& [layer, slot] = slots[names.emplace(own, entry.target.full_name()).first->second];
        layer = own;
        add_to_slot(slot, entry.adapter);
      }
    std::map<std::string, at::Tensor> merged;
    for (const auto& [name, filled] : slots) {
      const auto& [layer, adapter] = filled;
      merged.emplace(name + ".weight", layer->stored(adapter->weight(layer->weight())));
      if (!layer->bias().defined()) continue;
      const at::Tensor bias = adapter->bias(layer->bias());
      if (!bias.is_same(layer->bias())) merged.emplace(name + ".bias", bias);
    }
    merge_tensor_changes(sets, merged);
    return merged;
  });
}

}  // namespace ringlet::adapt
