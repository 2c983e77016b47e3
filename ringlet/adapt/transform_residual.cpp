#include "ringlet/adapt/transform_residual.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "ringlet/adapt/method_text.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/layer_scope.h"
#include "ringlet/nn/random_tensor.h"

namespace ringlet::adapt {
namespace {

/// a + s (b - a), exactly b for s = 1.
at::Tensor interpolate(const at::Tensor& a, const at::Tensor& b, double s) {
  return s == 1.0 ? b : a + s * (b - a);
}

/// The channels of an activation as its last axis: where they are in memory, too, since pictures
/// are channels-last.
at::Tensor channels_last(const at::Tensor& x) { return x.dim() == 4 ? x.permute({0, 2, 3, 1}) : x; }
at::Tensor channels_back(const at::Tensor& x) { return x.dim() == 4 ? x.permute({0, 3, 1, 2}) : x; }

/// A vector over the channels of an activation.
at::Tensor per_channel(const at::Tensor& vector, const at::Tensor& x) {
  return x.dim() == 4 ? vector.view({1, -1, 1, 1}) : vector;
}

/// compute(inputs), which reads the layer's whole weight in a type. Where that is a copy, neither
/// it nor what is made of it is kept for the backward pass, which computes them again: a narrow
/// base stays narrow.
at::Tensor with_wide_weight(const nn::Layer& layer, at::ScalarType type,
                            const nn::TensorFunction& compute,
                            const std::vector<at::Tensor>& inputs = {}) {
  return layer.stored_weight().needs_widening(type) ? nn::recomputed(compute, inputs)
                                                    : compute(inputs);
}

at::Tensor plus(const at::Tensor& y, const at::Tensor& bias) {
  return bias.defined() ? y + per_channel(bias.to(y.scalar_type()), y) : y;
}

/// T W or W T.
at::Tensor apply_to_weight(const Transform& transform, const at::Tensor& w) {
  if (transform.side() == Side::output) return transform.forward(w.movedim(0, -1)).movedim(-1, 0);
  if (transform.width() == w.size(1))
    return transform.right_multiply(w.movedim(1, -1)).movedim(-1, 1);
  return transform.right_multiply(w.flatten(1)).view(w.sizes());
}

std::string numbered(const std::string& part, std::size_t number) {
  return number == 0 ? part : part + "_" + std::to_string(number + 1);
}

}  // namespace

TransformResidual::TransformResidual(const LayerShape& shape, Parts parts, Method method)
    : shape_(shape), parts_(std::move(parts)), method_(std::move(method)) {
  if (const Parameters all = parameters(); !all.empty()) first_parameter_ = all.front().second;
}

std::string TransformResidual::spec() const { return method_text(method_); }

bool TransformResidual::has(Side side) const {
  return std::ranges::any_of(parts_.transforms,
                             [&](const auto& transform) { return transform->side() == side; });
}

bool TransformResidual::only_adds() const {
  return parts_.transforms.empty() && !parts_.magnitude && !parts_.bias.defined();
}

at::Tensor TransformResidual::changed_weight(const at::Tensor& w0, bool with_residual) const {
  at::Tensor w = w0;
  for (const auto& transform : parts_.transforms) w = apply_to_weight(*transform, w);
  if (with_residual && parts_.residual) w = w + parts_.residual->weight().to(w.scalar_type());
  return w;
}

at::Tensor TransformResidual::weight(const at::Tensor& w0) const {
  // In fp32 at least: a merged half-precision weight is rounded once.
  const at::Tensor wide = w0.scalar_type() == at::kDouble ? w0 : w0.to(at::kFloat);
  at::Tensor w = changed_weight(wide, true);
  if (parts_.magnitude) w = parts_.magnitude->scale(w, parts_.magnitude->gain(w));
  return interpolate(wide, w, strength).contiguous().to(w0.scalar_type());
}

bool TransformResidual::changes_bias() const {
  return parts_.bias.defined() ||
         std::ranges::any_of(parts_.transforms, [](const auto& t) { return t->takes_bias(); });
}

at::Tensor TransformResidual::bias(const at::Tensor& b0) const {
  if (!b0.defined() || !changes_bias() || strength == 0.0) return b0;
  const at::Tensor wide = b0.scalar_type() == at::kDouble ? b0 : b0.to(at::kFloat);
  at::Tensor b = wide;
  for (const auto& transform : parts_.transforms)
    if (transform->takes_bias()) b = transform->forward(b);
  if (parts_.bias.defined()) b = b + (parts_.bias_scale * parts_.bias).to(wide.scalar_type());
  return interpolate(wide, b, strength).to(b0.scalar_type());
}

at::Tensor TransformResidual::transformed(const at::Tensor& x, Side side) const {
  at::Tensor y = channels_last(x);
  const auto apply = [&](const auto& transform) {
    if (transform->side() == side) y = transform->forward(y);
  };
  // W0 T1 T2 x: the last one that W0 meets is the first that x meets, and T2 T1 (W0 x) not so.
  if (side == Side::input)
    std::ranges::for_each(parts_.transforms.rbegin(), parts_.transforms.rend(), apply);
  else
    std::ranges::for_each(parts_.transforms, apply);
  return channels_back(y);
}

/// Input dropout's mask for x. It counts elements in the order in which a picture's channels lie in
/// memory.
at::Tensor TransformResidual::kept_inputs(const at::Tensor& x) const {
  std::vector<std::int64_t> sizes = channels_last(x).sizes().vec();
  const bool some = rows_.numbers.defined() && sizes.front() == rows_.numbers.size(0);
  if (some) sizes.front() = rows_.of;
  const at::Tensor kept = nn::keep_mask(input_key_, sizes, input_dropout_, x.device());
  return channels_back(some ? kept.index_select(0, rows_.numbers) : kept);
}

at::Tensor TransformResidual::add_residual(const at::Tensor& y, double s, const nn::Layer& layer,
                                           const at::Tensor& x) const {
  if (!parts_.residual) return y;
  if (input_dropout_ == 0.0) return parts_.residual->add_to(y, s, layer, x);
  // What is kept is scaled behind D: a number instead of a tensor.
  return parts_.residual->add_to(y, s / nn::kept_share(input_dropout_), layer, x * kept_inputs(x));
}

bool TransformResidual::trainable() const {
  // Not whether gradients are recorded now: a checkpointed pass must choose as its repetition.
  return first_parameter_.defined() && first_parameter_.requires_grad();
}

Contraction TransformResidual::choose(const at::Tensor& x) const {
  const auto in_patches = [&](const auto& transform) {
    return transform->side() == Side::input && transform->width() != shape_.in;
  };
  const bool of_patches = std::ranges::any_of(parts_.transforms, in_patches);
  const bool low_rank = dynamic_cast<const FactoredResidual*>(parts_.residual.get()) != nullptr;
  // The length of the rows is known without forming them for W0 + up down only.
  if (parts_.magnitude && (!parts_.transforms.empty() || (parts_.residual && !low_rank)))
    return Contraction::everything_folded;
  Contraction chosen = contraction ? *contraction
                                   : choose_contraction(parts_.transforms, parts_.residual.get(),
                                                        shape_, x.numel() / shape_.in, trainable());
  if (chosen == Contraction::through_input && of_patches) chosen = Contraction::transform_folded;
  // A half-precision weight would lose a small residual, and dropout needs D's own input.
  const bool wide = x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble;
  if (chosen == Contraction::everything_folded && (!wide || input_dropout_ > 0.0))
    chosen = Contraction::transform_folded;
  if (chosen == Contraction::transform_folded && parts_.transforms.empty())
    chosen = Contraction::through_input;
  return chosen;
}

at::Tensor TransformResidual::without_magnitude(const nn::Layer& layer, const at::Tensor& x,
                                                double s, Contraction chosen,
                                                bool with_bias) const {
  if (chosen != Contraction::through_input) {
    const bool everything = chosen == Contraction::everything_folded;
    const at::ScalarType type = x.scalar_type();
    const auto folded = [this, &layer, type, s, everything, with_bias](const auto& in) {
      const at::Tensor w0 = layer.stored_weight().widened(type);
      const at::Tensor w = interpolate(w0, changed_weight(w0, everything), s).contiguous();
      return layer.operate(w, with_bias ? bias(layer.bias()) : at::Tensor(), in.front());
    };
    const at::Tensor y = with_wide_weight(layer, type, folded, {x});
    return everything ? y : add_residual(y, s, layer, x);
  }
  const at::Tensor in = has(Side::input) ? interpolate(x, transformed(x, Side::input), s) : x;
  if (with_bias && !has(Side::output) && !changes_bias())
    return add_residual(layer.base(in), s, layer, x);
  at::Tensor y = layer.without_bias(in);
  if (has(Side::output)) y = transformed(y, Side::output);
  if (with_bias) y = plus(y, bias(layer.bias()));
  return add_residual(y, s, layer, x);
}

at::Tensor TransformResidual::with_magnitude(const nn::Layer& layer, const at::Tensor& x) const {
  const Magnitude& magnitude = *parts_.magnitude;
  const auto type = x.scalar_type();
  if (choose(x) == Contraction::everything_folded) {
    const auto folded = [this, &magnitude, &layer, type](const auto& in) {
      const at::Tensor w = changed_weight(layer.stored_weight().widened(type), true);
      return layer.operate(magnitude.scale(w, magnitude.gain(w).to(type)).contiguous(),
                           bias(layer.bias()), in.front());
    };
    return with_wide_weight(layer, type, folded, {x});
  }
  const auto* residual = dynamic_cast<const FactoredResidual*>(parts_.residual.get());
  const auto gain_of = [&magnitude, &layer, residual, type](const auto&) {
    return residual != nullptr ? magnitude.gain(layer.weight(), residual->pair())
                               : magnitude.gain(layer.stored_weight().widened(type));
  };
  const at::Tensor gain = with_wide_weight(layer, first_parameter_.scalar_type(), gain_of).to(type);
  if (magnitude.side() == Side::input)
    return without_magnitude(layer, x * per_channel(gain, x), 1.0, Contraction::through_input,
                             true);
  const at::Tensor y = without_magnitude(layer, x, 1.0, Contraction::through_input, false);
  return plus(y * per_channel(gain, y), bias(layer.bias()));
}

at::Tensor TransformResidual::forward(const nn::Layer& layer, const at::Tensor& x) const {
  if (strength == 0.0 || left_out_) return layer.base(x);
  const nn::LayerScope scope(nn::LayerKind::adapter);
  if (!parts_.magnitude && !has(Side::output))
    return without_magnitude(layer, x, strength, choose(x), true);
  if (strength != 1.0)  // no way to interpolate inside: the weight of this strength
    return layer.operate(weight(layer.stored_weight().widened(x.scalar_type())), bias(layer.bias()),
                         x);
  return parts_.magnitude ? with_magnitude(layer, x)
                          : without_magnitude(layer, x, 1.0, choose(x), true);
}

template <class Ask>
Parameters TransformResidual::of_parts(Ask ask) const {
  Parameters named;
  const auto add = [&](const std::string& part, const auto& asked) {
    for (const auto& [name, tensor] : ask(asked)) named.emplace_back(part + "." + name, tensor);
  };
  for (std::size_t i = 0; i < parts_.transforms.size(); ++i)
    add(numbered("transform", i), *parts_.transforms[i]);
  if (parts_.residual) add("residual", *parts_.residual);
  if (parts_.magnitude) add("magnitude", *parts_.magnitude);
  return named;
}

Parameters TransformResidual::parameters() const {
  Parameters named = of_parts([](const auto& part) { return part.parameters(); });
  if (parts_.bias.defined()) named.emplace_back("bias.d", parts_.bias);
  return named;
}

Parameters TransformResidual::starts() const {
  return of_parts([](const auto& part) { return part.starts(); });
}

Parameters TransformResidual::constants() const {
  Parameters named;
  if (parts_.residual)
    for (const auto& [name, tensor] : parts_.residual->constants())
      named.emplace_back("residual." + name, tensor);
  return named;
}

std::vector<const Derived*> TransformResidual::derived() const {
  std::vector<const Derived*> all;
  for (const auto& transform : parts_.transforms)
    std::ranges::copy(transform->derived(), std::back_inserter(all));
  if (parts_.residual) std::ranges::copy(parts_.residual->derived(), std::back_inserter(all));
  return all;
}

std::vector<at::Tensor> TransformResidual::tensors() const {
  std::vector<at::Tensor> all;
  for (const Parameters& some : {parameters(), starts(), constants()})
    for (const auto& [name, tensor] : some) all.push_back(tensor);
  const auto add_frozen = [&](const auto& part) {
    for (const at::Tensor& tensor : part.frozen()) all.push_back(tensor);
  };
  for (const auto& transform : parts_.transforms) add_frozen(*transform);
  if (parts_.residual) add_frozen(*parts_.residual);
  return all;
}

std::int64_t TransformResidual::dropped_ranks(double rate) const {
  if (rate == 0.0 || !parts_.residual) return 0;
  const std::int64_t ranks = parts_.residual->ranks();
  if (ranks == 0)
    throw Error(ErrorCode::unsupported, spec(), "has no ranks to drop",
                "train without `rank_dropout`");
  return ranks;
}

void TransformResidual::begin_step(const Dropout& rates, RandomStream random,
                                   std::span<float> rank_factors) {
  left_out_ = rates.module > 0.0 && random.uniform() < rates.module;
  RandomStream ranks(random.next_u64(), 1);
  input_key_ = random.next_u64();
  input_dropout_ = rates.input;
  const auto kept = static_cast<float>(1.0 / (1.0 - rates.rank));
  for (float& factor : rank_factors) factor = ranks.uniform() < rates.rank ? 0.0F : kept;
}

void TransformResidual::scale_ranks(const at::Tensor& factors) {
  if (parts_.residual) parts_.residual->scale_ranks(factors);
}

}  // namespace ringlet::adapt
