// What the tensors of adapter files are called: the endings of all dialects, under one name each.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/formats/adapter_names.h"
#include "ringlet/io/safetensors.h"

namespace ringlet::formats {

/// The tensors of one layer by what they are: "down", "up", "alpha", "w1_a", …
struct LayerTensors {
  std::string prefix;  ///< how the file calls the layer
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> names;  ///< of the tensors in the file
};

/// A file's tensors by layer.
struct AdapterTensors {
  Naming naming;
  std::vector<LayerTensors> layers;               ///< by prefix
  std::map<std::string, at::Tensor> projections;  ///< VeRA's shared matrices
  std::vector<std::string> unknown;               ///< names that end in nothing known
};

/// Sorts a file's tensors. Throws Error(bad_format) when it mixes the names of two dialects, or
/// says one thing twice in two spellings.
AdapterTensors sort_tensors(const std::shared_ptr<const io::SafetensorsFile>& file);

/// The types that factors may have: F64, F32, F16, BF16.
bool is_factor_type(at::ScalarType type);

/// A name or value of the file for a message: its first letters.
std::string shown(const std::string& text);

/// A dialect's ending for what a tensor is: (kohya, "down") -> ".lora_down.weight".
std::string ending(Naming naming, const std::string& what);

}  // namespace ringlet::formats
