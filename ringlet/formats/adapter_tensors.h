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
  std::string prefix;                 ///< how the file calls the layer
  Naming naming = Naming::diffusers;  ///< whose name that is
  std::map<std::string, at::Tensor> tensors = {};
  std::map<std::string, std::string> names = {};  ///< of the tensors in the file

  bool has(const char* what) const { return tensors.contains(what); }

  /// The file's name of a tensor that says what the layer's are: not a scale or a switch, which
  /// stand beside those of several methods.
  const std::string& telling_name() const;
};

/// A file's tensors by layer.
struct AdapterTensors {
  std::vector<LayerTensors> layers;               ///< by prefix
  std::map<std::string, at::Tensor> projections;  ///< VeRA's shared matrices
  std::vector<std::string> unknown;               ///< names that end in nothing known
  std::vector<std::string> embeddings;            ///< names of rows of new tokens

  std::string dialect() const;  ///< whose names the layers have: "kohya", "ComfyUI and kohya"
};

/// Who names tensors like this one.
Naming naming_of(const std::string& name);

/// What the names of embeddings bundled with an adapter begin with: "bundle_emb.WORD.clip_l".
inline constexpr const char* kBundledEmbedding = "bundle_emb.";

/// Sorts a file's tensors, whose layers may have the names of several programs. Throws
/// Error(bad_format) when the file is empty or says one thing twice in two spellings.
AdapterTensors sort_tensors(const std::shared_ptr<const io::SafetensorsFile>& file);

/// The method that the names of a file's tensors tell, the most special one: "DoRA", or "".
std::string told_method(const io::SafetensorsFile& file);

/// Whether a tensor is a scale or a switch ("alpha", "on_input", …), not numbers of a method.
bool is_setting(const std::string& what);

/// The types that factors may have: F64, F32, F16, BF16.
bool is_factor_type(at::ScalarType type);

/// A name or value of the file for a message: its first letters.
std::string shown(const std::string& text);

/// A dialect's ending for what a tensor is: (kohya, "down") -> ".lora_down.weight".
std::string ending(Naming naming, const std::string& what);

}  // namespace ringlet::formats
