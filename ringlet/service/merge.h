// Adapters written into weights, of a model or of any other network, or into one adapter.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include <c10/core/Device.h>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::service {

struct MergeRequest {
  std::filesystem::path model;       ///< a model, or what pipeline::open_network_file opens
  pipeline::ModelFileOptions files;  ///< how it is opened
  std::vector<pipeline::AdapterChoice> adapters;
  std::filesystem::path out;  ///< a folder, or a .safetensors file for a single file
  bool into_adapter = false;  ///< one adapter that does what all do together, in place of weights
  /// Pictures of the merged and the unmerged model are not compared. Other networks and adapters
  /// never are.
  bool no_check = false;
  at::Device device = at::Device(at::kCPU);  ///< where they are compared; unused with `no_check`
};

/// All but the adapters and the device, which are written otherwise on command lines.
void describe(OptionList& list, MergeRequest& request);

/// The options' values by field, with "device" and "adapters" as a ModelRequest has them. Throws
/// Error(invalid_argument) for unknown fields, with the nearest name, and for values of another
/// type.
MergeRequest merge_request_from_json(const Json& json);
Json to_json(const MergeRequest& request);

/// Does the request; weights are read from and written in their stored type. Returns the mean
/// difference of the compared pictures in 8-bit steps, or nothing. Throws Error(invalid_argument)
/// without adapters, Error(mismatch) when the pictures differ clearly (the result is kept), and as
/// open_adaptable, load_adapters, adapt::combine and the functions of pipeline/merge.h.
std::optional<double> merge(const MergeRequest& request);

}  // namespace ringlet::service
