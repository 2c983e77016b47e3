// Weights and inputs by formula; see formula.py, which is the same in Python.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <zlib.h>

#include "ringlet/nn/weight_source.h"
#include "tests/test_device.h"

namespace ringlet::golden {

/// Numbers in [-1, 1), exact multiples of 2^-23, where tests compute.
inline at::Tensor uniform(const std::string& name, const nn::Shape& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  float* out = tensor.data_ptr<float>();
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(name.data()), static_cast<uInt>(name.size()));
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    std::uint64_t z = (static_cast<std::uint64_t>(crc) << 32) + static_cast<std::uint64_t>(i);
    z += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z ^= z >> 31;
    out[i] = static_cast<float>(static_cast<double>(z >> 40) / 8388608.0 - 1.0);
  }
  return tensor.to(test_device());
}

/// A parameter: norms near 1, biases near 0, matrices with unit gain (variance 1 / fan-in).
inline at::Tensor weight(const std::string& name, const nn::Shape& shape) {
  const at::Tensor values = uniform(name, shape);
  if (shape.size() == 1) return 0.1 * values + (name.ends_with("weight") ? 1.0 : 0.0);
  std::int64_t fan_in = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) fan_in *= shape[i];
  return (values.to(at::kDouble) * std::sqrt(3.0 / static_cast<double>(fan_in))).to(at::kFloat);
}

/// A store that knows every tensor by the formula.
class FormulaStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    return weight(name, shape);
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "weights by formula"; }
};

}  // namespace ringlet::golden
