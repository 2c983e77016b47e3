#include "ringlet/pipeline/conditions.h"

#include <utility>
#include <vector>

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>

namespace ringlet::pipeline {

at::Tensor Conditions::get(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? at::Tensor() : found->second;
}

void Conditions::set(const std::string& name, at::Tensor tensor) {
  tensors_[name] = std::move(tensor);
}

std::int64_t Conditions::rows() const {
  return tensors_.empty() ? 0 : tensors_.begin()->second.size(0);
}

Conditions Conditions::row(std::int64_t index) const {
  Conditions one;
  for (const auto& [name, tensor] : tensors_) one.set(name, tensor.narrow(0, index, 1));
  return one;
}

Conditions Conditions::repeated(std::int64_t count) const {
  Conditions many;
  for (const auto& [name, tensor] : tensors_) {
    std::vector<std::int64_t> shape = tensor.sizes().vec();
    shape.front() = count;
    many.set(name, tensor.expand(shape));
  }
  return many;
}

Conditions Conditions::zeros() const {
  Conditions none;
  for (const auto& [name, tensor] : tensors_) none.set(name, at::zeros_like(tensor));
  return none;
}

Conditions Conditions::concatenate(std::span<const Conditions> parts) {
  if (parts.empty()) return {};
  Conditions all;
  for (const auto& [name, tensor] : parts.front().tensors_) {
    std::vector<at::Tensor> rows;
    for (const Conditions& part : parts) rows.push_back(part.tensors_.at(name));
    all.set(name, at::cat(rows));
  }
  return all;
}

}  // namespace ringlet::pipeline
