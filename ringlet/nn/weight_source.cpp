#include "ringlet/nn/weight_source.h"

#include <algorithm>
#include <set>

#include "ringlet/core/error.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/text.h"

namespace ringlet::nn {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

/// Buffers that older exporters wrote beside the parameters; they carry no information.
bool is_known_buffer(std::string_view name) { return name.ends_with("position_ids"); }

}  // namespace

void ModuleIndex::pack(const TensorStore& source, WeightUse use) const {
  constexpr std::size_t kHeldBytes = std::size_t{128} << 20;
  std::size_t held = 0;
  for (const auto& entry : layers) {
    entry.second->pack(use);
    held += entry.second->weight().nbytes();
    if (held < kHeldBytes) continue;
    source.release();
    return_free_memory();
    held = 0;
  }
  source.release();
  return_free_memory();
}

struct WeightSource::State {
  std::shared_ptr<const TensorStore> store;
  WeightOptions options;
  ModuleIndex index;
};

WeightSource::WeightSource(std::shared_ptr<const TensorStore> store, WeightOptions options)
    : state_(std::make_shared<State>(State{std::move(store), options, {}})) {}

WeightSource WeightSource::at(std::string_view name) const {
  return {state_, full_name(name) + "."};
}

std::string WeightSource::full_name(std::string_view name) const {
  return prefix_ + std::string(name);
}

const WeightOptions& WeightSource::options() const { return state_->options; }

std::string WeightSource::name() const {
  return prefix_.empty() ? "" : prefix_.substr(0, prefix_.size() - 1);
}

at::Tensor WeightSource::get(std::string_view name, const Shape& shape, const Init& init) const {
  const std::string full = full_name(name);
  std::optional<at::Tensor> found = state_->store->find(full, shape, init);
  if (!found) {
    const std::string nearest = nearest_name(full, state_->store->names());
    throw Error(ErrorCode::mismatch, state_->store->description(),
                "tensor \"" + full + "\" is missing",
                nearest.empty() ? "the file does not belong to a model with this config.json"
                                : "the nearest name there is \"" + nearest + "\"");
  }
  if (found->sizes() != at::IntArrayRef(shape))
    throw Error(ErrorCode::mismatch, state_->store->description(),
                "tensor \"" + full + "\" has shape " + shape_text(found->sizes()) +
                    ", but the model's config asks for " + shape_text(shape),
                "the weights and the config.json come from different models");
  const WeightOptions& options = state_->options;
  const bool keep = options.keep_storage_type && shape.size() >= 2 && found->is_floating_point();
  const at::ScalarType dtype = options.trainable ? at::kFloat : options.dtype;
  at::Tensor tensor = found->to(options.device, keep ? found->scalar_type() : dtype);
  if (options.trainable)
    tensor = (tensor.is_same(*found) ? tensor.clone() : tensor).set_requires_grad(true);
  state_->index.tensors.emplace(full, tensor);
  return tensor;
}

bool WeightSource::has(std::string_view name) const {
  const std::vector<std::string> names = state_->store->names();
  return std::binary_search(names.begin(), names.end(), full_name(name));
}

void WeightSource::add_layer(std::shared_ptr<Layer> layer) const {
  state_->index.layers.emplace(name(), std::move(layer));
}

ModuleIndex WeightSource::finish() const {
  std::vector<std::string> unused;
  for (const std::string& name : state_->store->names())
    if (!state_->index.tensors.contains(name) && !is_known_buffer(name)) unused.push_back(name);
  if (!unused.empty())
    throw Error(ErrorCode::mismatch, state_->store->description(),
                std::to_string(unused.size()) +
                    " tensor(s) do not belong to the model, the first: \"" + unused.front() + "\"",
                "the weights and the config.json come from different models");
  return std::move(state_->index);
}

}  // namespace ringlet::nn
