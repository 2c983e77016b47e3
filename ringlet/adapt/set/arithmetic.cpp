#include "ringlet/adapt/set/arithmetic.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/parts/trm.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::adapt {
namespace {

using Numbers = std::map<std::string, at::Tensor>;  // by a set's full parameter names

/// The adapters of one layer.
struct Stack {
  Target target;
  std::vector<const TransformResidual*> adapters;
};

Error no_sum(const std::string& layer, const std::string& why) {
  return {ErrorCode::unsupported, layer, why,
          "choose `as=lora` `rank=R` or `as=diff`, or merge the adapters into the model"};
}

std::map<std::string, Stack> stacks_of(std::span<const AdapterSet* const> sets) {
  std::map<std::string, Stack> stacks;
  std::map<const nn::Layer*, std::string> names;  // adapters may know one layer by several
  for (const AdapterSet* set : sets) {
    if (!set->tensor_changes().empty())
      throw no_sum(set->tensor_changes().front().target.full_name(),
                   "is a norm that the adapter changes, which only the LyCORIS format can store");
    for (const AdapterSet::Entry& entry : set->entries()) {
      const auto [name, is_new] = names.emplace(entry.target.layer.get(), entry.target.full_name());
      Stack& stack = stacks[name->second];
      if (is_new) stack.target = entry.target;
      if (entry.adapter->strength != 0.0) stack.adapters.push_back(entry.adapter.get());
    }
  }
  std::erase_if(stacks, [](const auto& one) { return one.second.adapters.empty(); });
  if (stacks.empty())
    throw Error(ErrorCode::invalid_argument, Field("adapter"), "no adapter changes anything",
                "give at least one with a strength other than 0");
  return stacks;
}

/// What the adapters add to the weight, and to the bias (undefined where they leave it alone).
std::pair<at::Tensor, at::Tensor> change_of(const Stack& stack) {
  const nn::Layer& layer = *stack.target.layer;
  const at::Tensor w0 = layer.weight().to(at::kFloat);
  at::Tensor weight = at::zeros_like(w0), bias;
  for (const TransformResidual* adapter : stack.adapters) {
    weight = weight + (adapter->weight(w0) - w0);
    if (!layer.bias().defined()) continue;
    const at::Tensor b0 = layer.bias().to(at::kFloat), changed = adapter->bias(b0);
    if (changed.is_same(b0)) continue;
    bias = bias.defined() ? bias + (changed - b0) : changed - b0;
  }
  return {weight, bias};
}

void fill(const AdapterSet& set, const Numbers& numbers) {
  for (const auto& [name, parameter] : set.stored())
    parameter.copy_(numbers.at(name).reshape(parameter.sizes()));
}

AdapterSet build(const std::vector<Assignment>& assignments, const FactorTable& factors,
                 const Numbers& numbers) {
  AdapterSet set = AdapterSet::create(assignments, factors, Random(0), true);
  fill(set, numbers);
  set.set_trainable(false);
  return set;
}

/// The smallest rank whose tail of singular values is at most the share `error` of all.
std::int64_t rank_for(const at::Tensor& values, double error) {
  const at::Tensor squares = values.to(at::kDouble).square();
  const double all = squares.sum().item<double>();
  double tail = all;
  for (std::int64_t rank = 0; rank < values.numel(); ++rank) {
    if (tail <= error * error * all) return std::max<std::int64_t>(rank, 1);
    tail -= squares[rank].item<double>();
  }
  return values.numel();
}

/// [f, …, R1, R1] and [f, …, R2, R2] -> [f, …, R1 + R2, R1 + R2], one block beside the other.
at::Tensor block_diagonal(const std::vector<at::Tensor>& cores) {
  std::int64_t rank = 0;
  for (const at::Tensor& core : cores) rank += core.size(-1);
  std::vector<std::int64_t> sizes = cores.front().sizes().vec();
  sizes[sizes.size() - 1] = sizes[sizes.size() - 2] = rank;
  at::Tensor all = at::zeros(sizes, cores.front().options().requires_grad(false));
  std::int64_t at_rank = 0;
  for (const at::Tensor& core : cores) {
    const std::int64_t own = core.size(-1);
    all.narrow(-1, at_rank, own).narrow(-2, at_rank, own).copy_(core);
    at_rank += own;
  }
  return all;
}

/// Sums the adapters of one layer, part by part.
class Sum {
 public:
  Sum(const Stack& stack, const FactorTable& factors) : stack_(stack), factors_(factors) {
    for (const TransformResidual* adapter : stack.adapters) {
      terms_.push_back({adapter->strength, {}, {}, {}, {}});
      read(*adapter, terms_.back());
    }
  }

  Assignment add(Numbers& numbers) {
    std::vector<PartSpec> parts;
    if (auto transform = sum_transforms(numbers)) parts.push_back(std::move(*transform));
    if (auto residual = sum_residuals(numbers)) parts.push_back(std::move(*residual));
    return {stack_.target, make_method(std::move(parts))};
  }

 private:
  struct Term {
    double strength;
    std::vector<at::Tensor> transform;          // cores of a trm, or none
    std::string residual;                       // "tr", "lora" or ""
    std::map<std::string, at::Tensor> numbers;  // of the residual
    double scale;                               // of a low rank
  };

  std::string name() const { return stack_.target.full_name(); }

  void read(const TransformResidual& adapter, Term& term) const {
    for (const PartSpec& part : adapter.method().parts) {
      const bool transform = part.name == "trm" && term.transform.empty();
      if (!transform && part.name != "tr" && part.name != "lora")
        throw no_sum(name(), "a sum with " + adapter.spec() + " cannot be written as one adapter");
      if (!transform) term.residual = part.name;
    }
    for (const auto& [full, tensor] : adapter.parameters()) {
      const std::size_t dot = full.find('.');
      if (full.starts_with("transform"))
        term.transform.push_back(tensor.detach());
      else
        term.numbers[full.substr(dot + 1)] = tensor.detach();
    }
    if (const auto* low = dynamic_cast<const FactoredResidual*>(adapter.parts().residual.get());
        low != nullptr && term.residual == "lora") {
      const FactoredResidual::Pair pair = low->pair();
      term.numbers = {{"down", pair.down.detach()}, {"up", pair.up.detach()}};
      term.scale = pair.scale;
    }
  }

  std::optional<PartSpec> sum_transforms(Numbers& numbers) {
    double left = 1.0;
    std::vector<std::pair<double, const std::vector<at::Tensor>*>> rings;
    for (const Term& term : terms_)
      if (!term.transform.empty()) {
        rings.emplace_back(term.strength, &term.transform);
        left -= term.strength;
      }
    if (rings.empty()) return std::nullopt;
    FactorTable table = factors_;
    const Factors& factors = table.at(LayerShape::of(stack_.target.layer->shape()).in);
    const std::vector<at::Tensor> identity =
        identity_cores(factors, 1, TrmStart::paper, Random(0).stream("identity"));
    if (left != 0.0) rings.emplace_back(left, &identity);
    std::int64_t rank = 0;
    for (std::size_t d = 0; d < factors.size(); ++d) {
      std::vector<at::Tensor> cores;
      for (const auto& [weight, ring] : rings) {
        if (ring->size() != factors.size() || (*ring)[d].size(0) != factors[d])
          throw no_sum(name(), "the rings have different modes");
        cores.push_back(d == 0 ? (*ring)[d] * weight : (*ring)[d]);
      }
      const at::Tensor core = block_diagonal(cores);
      rank = core.size(-1);
      numbers[name() + ".transform.core_" + std::to_string(d)] = core;
    }
    return make_part("trm", {{"rank", rank}});
  }

  std::optional<PartSpec> sum_residuals(Numbers& numbers) {
    std::vector<const Term*> terms;
    for (const Term& term : terms_)
      if (!term.residual.empty()) terms.push_back(&term);
    if (terms.empty()) return std::nullopt;
    const std::string& family = terms.front()->residual;
    for (const Term* term : terms)
      if (term->residual != family)
        throw no_sum(name(), "a sum of " + family + " and " + term->residual +
                                 " cannot be written as one adapter");
    return family == "lora" ? sum_low_ranks(terms, numbers) : sum_rings(terms, numbers);
  }

  PartSpec sum_low_ranks(const std::vector<const Term*>& terms, Numbers& numbers) const {
    std::vector<at::Tensor> downs, ups;
    for (const Term* term : terms) {
      downs.push_back(term->numbers.at("down"));
      ups.push_back(term->numbers.at("up") * (term->strength * term->scale));
    }
    numbers[name() + ".residual.down"] = at::cat(downs);
    const at::Tensor up = at::cat(ups, 1);
    numbers[name() + ".residual.up"] = up;
    return make_part("lora", {{"rank", up.size(1)}});  // alpha = rank: scale 1
  }

  PartSpec sum_rings(const std::vector<const Term*>& terms, Numbers& numbers) const {
    std::int64_t rank = 0;
    for (const auto& [part, first] : terms.front()->numbers) {
      std::vector<at::Tensor> cores;
      for (const Term* term : terms) {
        const auto found = term->numbers.find(part);
        if (found == term->numbers.end() || found->second.size(0) != first.size(0))
          throw no_sum(name(), "the rings have different modes");
        cores.push_back(part == "out_0" ? found->second * term->strength : found->second);
      }
      const at::Tensor core = block_diagonal(cores);
      rank = core.size(-1);
      numbers[name() + ".residual." + part] = core;
    }
    return make_part("tr", {{"rank", rank}});
  }

  const Stack& stack_;
  const FactorTable& factors_;
  std::vector<Term> terms_;
};

}  // namespace

Approximation as_low_rank(std::span<const AdapterSet* const> sets, const LowRankGoal& goal) {
  return nn::with_ringlet_errors("`as=lora`", [&] {
    const at::NoGradGuard no_grad;
    std::vector<Assignment> assignments;
    std::vector<LayerError> errors;
    Numbers numbers;
    double all = 0.0, lost = 0.0;
    for (const auto& [name, stack] : stacks_of(sets)) {
      const auto [weight, bias] = change_of(stack);
      const auto [u, s, vt] = at::linalg_svd(weight.flatten(1), false);
      const std::int64_t rank =
          goal.rank > 0 ? std::min(goal.rank, s.numel()) : rank_for(s, goal.max_error);
      const at::Tensor root = s.narrow(0, 0, rank).sqrt();
      numbers[name + ".residual.up"] = u.narrow(1, 0, rank) * root;
      numbers[name + ".residual.down"] = root.unsqueeze(1) * vt.narrow(0, 0, rank);
      std::vector<PartSpec> parts = {make_part("lora", {{"rank", rank}})};
      if (bias.defined()) {
        numbers[name + ".bias.d"] = bias;
        parts.push_back(make_part("bias"));
      }
      assignments.push_back({stack.target, make_method(std::move(parts))});
      const double own = s.square().sum().item<double>();
      const double tail = s.narrow(0, rank, s.numel() - rank).square().sum().item<double>();
      errors.push_back({name, rank, own > 0.0 ? std::sqrt(tail / own) : 0.0});
      all += own;
      lost += tail;
    }
    return Approximation{build(assignments, FactorTable(), numbers), std::move(errors),
                         all > 0.0 ? std::sqrt(lost / all) : 0.0};
  });
}

AdapterSet as_difference(std::span<const AdapterSet* const> sets) {
  return nn::with_ringlet_errors("`as=diff`", [&] {
    const at::NoGradGuard no_grad;
    std::vector<Assignment> assignments;
    Numbers numbers;
    for (const auto& [name, stack] : stacks_of(sets)) {
      const auto [weight, bias] = change_of(stack);
      numbers[name + ".residual.diff"] = weight;
      std::vector<PartSpec> parts = {make_part("diff")};
      if (bias.defined()) {
        numbers[name + ".bias.d"] = bias;
        parts.push_back(make_part("bias"));
      }
      assignments.push_back({stack.target, make_method(std::move(parts))});
    }
    return build(assignments, FactorTable(), numbers);
  });
}

AdapterSet combine(std::span<const AdapterSet* const> sets) {
  return nn::with_ringlet_errors(Field("into_adapter"), [&] {
    const at::NoGradGuard no_grad;
    std::vector<Assignment> assignments;
    Numbers numbers;
    const FactorTable& factors = sets.front()->factors();
    for (const auto& [name, stack] : stacks_of(sets))
      assignments.push_back(Sum(stack, factors).add(numbers));
    return build(assignments, factors, numbers);
  });
}

}  // namespace ringlet::adapt
