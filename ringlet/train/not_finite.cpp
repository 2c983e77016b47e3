#include "ringlet/train/not_finite.h"

#include <cmath>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>

#include "ringlet/core/text.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::train {
namespace {

bool all_finite(const at::Tensor& numbers) {
  return !numbers.is_floating_point() || at::isfinite(numbers).all().item<bool>();
}

/// Sits in a layer's slot, does what was there before, and looks at the result.
class Probe final : public nn::Adapter {
 public:
  Probe(std::string name, std::shared_ptr<nn::Adapter> before, std::optional<NotFiniteLayer>& found)
      : name_(std::move(name)), before_(std::move(before)), found_(found) {}

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override {
    at::Tensor y = before_ ? before_->forward(layer, x) : layer.base(x);
    if (!found_ && !all_finite(y)) found_ = NotFiniteLayer{name_, all_finite(x)};
    return y;
  }
  at::Tensor weight(const at::Tensor& w0) const override {
    return before_ ? before_->weight(w0) : w0;
  }
  at::Tensor bias(const at::Tensor& b0) const override { return before_ ? before_->bias(b0) : b0; }
  std::vector<std::pair<std::string, at::Tensor>> parameters() const override {
    return before_ ? before_->parameters() : std::vector<std::pair<std::string, at::Tensor>>();
  }
  std::string spec() const override { return before_ ? before_->spec() : ""; }
  const std::shared_ptr<nn::Adapter>& before() const { return before_; }

 private:
  std::string name_;
  std::shared_ptr<nn::Adapter> before_;
  std::optional<NotFiniteLayer>& found_;
};

/// The probes of a network, which leave its layers when this ends.
class Probes {
 public:
  Probes(const adapt::Components& components, std::optional<NotFiniteLayer>& found) {
    for (const auto& [component, network] : components)
      for (const auto& [name, layer] : network->layers) {
        auto probe = std::make_shared<Probe>(component + "." + name, layer->adapter, found);
        layer->adapter = probe;
        placed_.emplace_back(layer, std::move(probe));
      }
  }
  ~Probes() {
    for (const auto& [layer, probe] : placed_) layer->adapter = probe->before();
  }
  Probes(const Probes&) = delete;
  Probes& operator=(const Probes&) = delete;

 private:
  std::vector<std::pair<std::shared_ptr<nn::Layer>, std::shared_ptr<Probe>>> placed_;
};

/// The examples whose own loss is not finite; all where none of them is it alone, or that cannot be
/// computed.
std::vector<std::string> culprits(const Task& task, std::int64_t micro_batch,
                                  const BatchPart& part) {
  const std::vector<std::string> names = task.example_names(micro_batch);
  if (names.size() != static_cast<std::size_t>(part.of)) return {};
  const at::NoGradGuard no_grad;
  std::vector<std::string> all, found;
  for (std::int64_t i = part.begin; i < part.end; ++i) {
    all.push_back(names[static_cast<std::size_t>(i)]);
    if (!task.divisible() || part.end - part.begin == 1) continue;
    const BatchPart one{i, i + 1, part.of};
    if (!std::isfinite(task.loss(micro_batch, one).item<double>())) found.push_back(all.back());
  }
  return found.empty() ? all : found;
}

}  // namespace

std::optional<NotFiniteLayer> first_not_finite_layer(const adapt::Components& components,
                                                     const std::function<void()>& pass) {
  std::optional<NotFiniteLayer> found;
  const Probes probes(components, found);
  const at::NoGradGuard no_grad;
  pass();
  return found;
}

std::string not_finite_text(const Task& task, std::int64_t micro_batch, const BatchPart& part,
                            const std::function<void()>& pass) {
  std::string text;
  try {
    if (const std::vector<std::string> names = culprits(task, micro_batch, part); !names.empty())
      text += " (" + join(names) + ")";
    if (const auto layer = first_not_finite_layer(task.components(), pass))
      text += "; it begins " + std::string(layer->finite_input ? "in " : "before ") + layer->name;
  } catch (const std::exception&) {  // the step is skipped whatever is known about it
  }
  return text;
}

}  // namespace ringlet::train
