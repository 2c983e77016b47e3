// What a file or folder is and what it holds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/model_files.h"

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

/// The same with a component for each network of `files`' text encoders and autoencoder.
Json describe(const std::filesystem::path& path, const ModelFileOptions& files);

// For the families' own descriptions.

/// Sums over the tensors of a part.
struct PartContent {
  std::int64_t parameters = 0;
  std::int64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::map<std::string, std::int64_t> dtypes;

  void add(const io::TensorInfo& info);
  Json json(const std::string& name) const;  ///< an entry of "components"
};

/// A weight file, or the shards of an index. Throws as FileStore::open.
PartContent content_of(const std::filesystem::path& weights);

/// The tensors of a file, sorted into parts by name.
Json components_of(const io::SafetensorsFile& file, std::string (*part_of)(const std::string&));

/// A model folder with these parts, where it has them.
Json describe_model_folder(const ModelFiles& files, const std::vector<std::string>& parts,
                           const std::string& variant);

/// Adds "prediction", "sampler" and "schedule" from a scheduler_config.json. A schedule that
/// ringlet does not know is a note: what the file holds can be told all the same.
void add_schedule(Json& description, const Json& scheduler, const std::string& where,
                  const std::string& prediction_source);

}  // namespace ringlet::pipeline
