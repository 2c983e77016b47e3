// What a file or folder is and what it holds.
#pragma once

#include <filesystem>

#include "ringlet/core/json.h"

namespace ringlet::pipeline {

/// Describes a model folder, a part of one, a checkpoint or an adapter file:
///   {"path", "kind", "components": [{"name", "parameters", "tensors", "bytes",
///    "dtypes": {"F16": parameters}}], "metadata": {…}, "notes": […]}
/// and, for a text-to-image model,
///   {"prediction": {"type", "source"}, "sampler", "schedule": {"training_steps", "beta_schedule",
///    "beta_start", "beta_end", "zero_terminal_snr", "terminal_snr", "spacing", "source"}}
/// where a source says for people how that is known; the last two are absent for a schedule that
/// ringlet does not know, and a note says so. `variant` is that of ModelFileOptions, for a model
/// folder. Reads headers and configurations only. Throws Error as the readers do.
Json describe(const std::filesystem::path& path, const std::string& variant = {});

}  // namespace ringlet::pipeline
