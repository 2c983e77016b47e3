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

/// The type that a tensor of the store has in a network where WeightOptions::storage does not say.
at::ScalarType type_in(const WeightOptions& options, const at::Tensor& stored) {
  // Nothing computes with bare fp8: WeightStorage's has scales.
  if (options.keep_storage_type && stored.dim() >= 2 && stored.is_floating_point() &&
      !at::isFloat8Type(stored.scalar_type()))
    return stored.scalar_type();
  return options.trainable ? at::kFloat : options.dtype;
}

/// How much of a file is read before its pages are given back.
constexpr std::size_t kHeldBytes = std::size_t{128} << 20;

}  // namespace

std::uint64_t ModuleIndex::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [name, tensor] : tensors) sum += tensor.nbytes();
  for (const auto& [name, layer] : layers)
    if (layer->stored_weight().coded()) sum += layer->stored_weight().nbytes();
  return sum;
}

void ModuleIndex::pack(const TensorStore& source, WeightUse use) const {
  std::size_t held = 0;
  for (const auto& entry : layers) {
    entry.second->pack(use);
    held += entry.second->stored_weight().nbytes();
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
  std::set<std::string> narrowed;  ///< names of tensors that became codes
  std::size_t held = 0;            ///< bytes of the store that were narrowed and not given back
};

WeightSource::WeightSource(std::shared_ptr<const TensorStore> store, WeightOptions options)
    : state_(std::make_shared<State>(State{std::move(store), std::move(options), {}, {}})) {}

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

at::Tensor WeightSource::find(const std::string& full, const Shape& shape, const Init& init) const {
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
  return *found;
}

at::Tensor WeightSource::get(std::string_view name, const Shape& shape, const Init& init) const {
  const std::string full = full_name(name);
  const at::Tensor found = find(full, shape, init);
  const WeightOptions& options = state_->options;
  const at::ScalarType type = type_in(options, found);
  // Small tensors have their type at home, too: adapters may add to them there.
  const bool as_it_is = options.at_home && shape.size() >= 2;
  at::Tensor tensor =
      as_it_is ? found.detach() : found.to(options.at_home ? at::kCPU : options.device, type);
  if (options.at_home && tensor.is_same(found)) tensor = found.detach();
  if (options.at_home) state_->index.device_types.emplace(full, type);
  if (options.trainable)
    tensor = (tensor.is_same(found) ? tensor.clone() : tensor).set_requires_grad(true);
  state_->index.tensors.emplace(full, tensor);
  return tensor;
}

bool WeightSource::is_narrowed(const std::string& full, const Shape& shape) const {
  constexpr std::size_t kKernelAxes = 4;
  constexpr std::int64_t kColours = 4;
  const WeightOptions& options = state_->options;
  if (options.storage == WeightStorage::as_stored || options.trainable) return false;
  if (shape.size() == kKernelAxes && std::min(shape[0], shape[1]) <= kColours) return false;
  return std::ranges::none_of(options.wide_layers,
                              [&](const std::string& layer) { return full.starts_with(layer); });
}

StoredWeight WeightSource::narrowed(const Shape& shape, const Init& init, bool transposed) const {
  const std::string full = full_name("weight");
  const auto as_used = [&](const at::Tensor& tensor) { return transposed ? tensor.t() : tensor; };
  if (!is_narrowed(full, shape)) return as_used(get("weight", shape, init));
  const at::Tensor found = find(full, shape, init);
  if (state_->store->has_invented(full)) return as_used(get("weight", shape, init));
  const WeightOptions& options = state_->options;
  if (options.at_home && !is_coded(options.storage)) {
    // Widened when it comes to the device, narrowed at once: adapters begin from its numbers.
    const bool wide = options.storage == WeightStorage::fp32;
    const at::Tensor kept = wide ? found : found.to(at::kBFloat16);
    const at::Tensor home = state_->index.tensors.emplace(full, kept.detach()).first->second;
    state_->index.device_types.emplace(full, wide ? at::kFloat : at::kBFloat16);
    if (!kept.is_same(found)) release_pages(found.nbytes());
    return as_used(home);
  }
  const at::Tensor there = found.to(options.at_home ? at::kCPU : options.device);
  StoredWeight made;
  try {
    made = StoredWeight::narrowed(as_used(there), options.storage);
  } catch (const Error& error) {
    throw Error(error.code(), state_->store->description(),
                "tensor \"" + full + "\" " + error.message(), error.hint());
  }
  if (made.coded())
    state_->narrowed.insert(full);
  else
    state_->index.tensors.emplace(full, as_used(made.plain()));
  release_pages(found.nbytes());
  return made;
}

/// What has been narrowed is not read again.
void WeightSource::release_pages(std::size_t read) const {
  state_->held += read;
  if (state_->held < kHeldBytes) return;
  state_->store->release();
  return_free_memory();
  state_->held = 0;
}

StoredWeight WeightSource::weight(const Shape& shape, const Init& init) const {
  return narrowed(shape, init, /*transposed=*/false);
}

StoredWeight WeightSource::transposed_weight(const Shape& stored, const Init& init) const {
  return narrowed(stored, init, /*transposed=*/true);
}

bool WeightSource::has(std::string_view name) const {
  const std::vector<std::string> names = state_->store->names();
  return std::binary_search(names.begin(), names.end(), full_name(name));
}

void WeightSource::add_layer(std::shared_ptr<Layer> layer) const {
  layer->compute_on(state_->options.device);
  state_->index.layers.emplace(name(), std::move(layer));
}

void WeightSource::add_block(const std::shared_ptr<BlockState>& block) const {
  block->name = name();
  state_->index.blocks.emplace(block->name, block);
}

ModuleIndex WeightSource::finish() const {
  std::vector<std::string> unused;
  for (const std::string& name : state_->store->names())
    if (!state_->index.tensors.contains(name) && !state_->narrowed.contains(name) &&
        !is_known_buffer(name))
      unused.push_back(name);
  if (!unused.empty())
    throw Error(ErrorCode::mismatch, state_->store->description(),
                std::to_string(unused.size()) +
                    " tensor(s) do not belong to the model, the first: \"" + unused.front() + "\"",
                "the weights and the config.json come from different models");
  return std::move(state_->index);
}

}  // namespace ringlet::nn
