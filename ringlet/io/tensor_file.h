// Tensors in safetensors files.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/io/safetensors.h"

namespace ringlet::io {

/// The tensor `info` of a mapped file: a view of the mapping (which stays alive with it) when its
/// bytes are aligned for its type, else a copy. Throws Error(unsupported) for the sub-byte types
/// that LibTorch has no tensor of.
at::Tensor view_tensor(const std::shared_ptr<const SafetensorsFile>& file, const TensorInfo& info);

/// All tensors of a file by name. Throws as SafetensorsFile::open and view_tensor.
std::map<std::string, at::Tensor> load_tensors(const std::filesystem::path& path);

/// Writes tensors atomically and deterministically (see write_safetensors); they are made
/// contiguous and copied to the CPU first.
void save_tensors(const std::filesystem::path& path,
                  const std::map<std::string, at::Tensor>& tensors, const Metadata& metadata = {},
                  const BeforeRename& before_rename = {});

}  // namespace ringlet::io
