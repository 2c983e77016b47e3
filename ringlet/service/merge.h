// Adapters written into weights, of a model or of any other network, or into one adapter.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include <c10/core/Device.h>

#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::service {

struct MergeRequest {
  std::filesystem::path model;       ///< a model, or what pipeline::open_network_file opens
  pipeline::ModelFileOptions files;  ///< how it is opened
  std::vector<pipeline::AdapterChoice> adapters;
  std::filesystem::path out;  ///< a folder, or a .safetensors file for a single file
  bool into_adapter = false;  ///< one adapter that does what all do together, in place of weights
  /// Where pictures of the merged and the unmerged model are compared; nothing = not at all. Other
  /// networks and adapters are not compared.
  std::optional<at::Device> compare_on = at::Device(at::kCPU);
};

/// Does the request; weights are read from and written in their stored type. Returns the mean
/// difference of the compared pictures in 8-bit steps, or nothing. Throws Error(invalid_argument)
/// without adapters, Error(mismatch) when the pictures differ clearly (the result is kept), and as
/// open_adaptable, load_adapters, adapt::combine and the functions of pipeline/merge.h.
std::optional<double> merge(const MergeRequest& request);

}  // namespace ringlet::service
