#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include <ATen/ops/isfinite.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/adapter_file_format.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::adapt {

bool is_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

bool is_storage_type(at::ScalarType type) {
  constexpr std::array kStorageTypes = {at::kFloat, at::kHalf, at::kBFloat16};
  return std::ranges::find(kStorageTypes, type) != kStorageTypes.end();
}

namespace {

io::Metadata metadata_of(const AdapterSet& set, const AdapterFileInfo& info) {
  io::Metadata metadata = info.extra;
  for (const auto& [key, value] : metadata)
    if (key.starts_with(kPrefix))
      throw Error(ErrorCode::invalid_argument, key, "is a metadata key that ringlet reserves");
  Json factors = Json::object(), shapes = Json::object();
  for (const auto& [n, split] : set.factors().entries())
    factors[std::to_string(n)] = to_string(split);
  for (const AdapterSet::Entry& entry : set.entries())
    shapes[entry.target.full_name()] = entry.target.layer->shape().vec();
  for (const auto& [target, difference] : set.tensor_changes())
    shapes[target.full_name()] = difference.sizes().vec();
  metadata["ringlet.format"] = std::to_string(kFormat);
  metadata["ringlet.method"] = method_text(set.method());
  metadata["ringlet.modes"] = std::to_string(set.factors().modes());
  metadata["ringlet.factors"] = factors.dump();
  metadata["ringlet.base_hash"] = info.base_hash;
  if (!info.base_kind.empty()) metadata["ringlet.base_kind"] = info.base_kind;
  metadata["ringlet.base_shapes"] = shapes.dump();
  metadata["ringlet.training"] = info.training;
  if (!info.control.empty()) metadata["ringlet.control"] = info.control;
  if (!info.new_layers.empty()) metadata["ringlet.new_layers"] = Json(info.new_layers).dump();
  if (!info.network_config.empty()) metadata["ringlet.config"] = info.network_config;
  Json exceptions = Json::object();
  for (const AdapterSet::Entry& entry : set.entries())
    if (entry.adapter->method() != set.method())
      exceptions[entry.target.full_name()] = method_text(entry.adapter->method());
  if (!exceptions.empty()) metadata["ringlet.layer_methods"] = exceptions.dump();
  return metadata;
}

}  // namespace

void save_adapter(const std::filesystem::path& path, const AdapterSet& set,
                  const AdapterFileInfo& info) {
  if (!is_storage_type(info.storage))
    throw Error(ErrorCode::invalid_argument, path.string(),
                std::string("adapters cannot be stored as ") + at::toString(info.storage),
                "use fp32, fp16 or bf16");
  nn::with_ringlet_errors(path.string(), [&] {
    std::map<std::string, at::Tensor> tensors;
    const auto add = [&](const std::string& name, const at::Tensor& parameter) {
      at::Tensor stored = parameter.detach().to(info.storage);
      if (!is_finite(stored))
        throw Error(ErrorCode::non_finite, name, "holds numbers that are not finite as stored",
                    is_finite(parameter.detach()) ? "too large for fp16; store fp32 or bf16"
                                                  : "the training diverged; nothing was written");
      tensors.emplace(name, std::move(stored));
    };
    for (const auto& [name, parameter] : set.stored()) add(name, parameter);
    for (const auto& [name, tensor] : info.control_tensors)
      add(std::string(kControl) + name, tensor);
    io::save_tensors(path, tensors, metadata_of(set, info));
  });
}

}  // namespace ringlet::adapt
