// What a file or folder is and what it holds.
#pragma once

#include <filesystem>

#include "ringlet/core/json.h"

namespace ringlet::pipeline {

/// Describes a model folder, a part of one, a checkpoint or an adapter file:
///   {"path", "kind", "components": [{"name", "parameters", "tensors", "bytes",
///    "dtypes": {"F16": parameters}}], "metadata": {…}, "sampler", "notes": […]}
/// Reads headers and configurations only. Throws Error as the readers do.
Json describe(const std::filesystem::path& path);

}  // namespace ringlet::pipeline
