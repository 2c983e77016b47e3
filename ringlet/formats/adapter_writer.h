// An AdapterSet into the adapter files of other programs.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/metadata_level.h"
#include "ringlet/formats/adapter_format.h"

namespace ringlet::formats {

using adapt::kMetadataLevelNames;
using adapt::MetadataLevel;

struct AdapterWriteOptions {
  AdapterFormat format = AdapterFormat::ringlet;
  MetadataLevel metadata = MetadataLevel::minimum;
  std::string title = {};         ///< modelspec.title
  std::string architecture = {};  ///< modelspec.architecture: "stable-diffusion-v1/lora", …
  /// Paths of layers in the class that the model's folder names, by "component.path", where they
  /// are others: PEFT compares names with those of the network that it is given. See
  /// pipeline::class_names.
  std::map<std::string, std::string> class_names = {};
};

/// Writes the set for another program: a file, or for PEFT a folder (with a folder per component
/// when there are several). Nothing is written unless all of it can be. Throws Error(unsupported)
/// that names the first layer whose method the program has no form for, with the choices; and as
/// adapt::save_adapter.
void write_adapter(const std::filesystem::path& path, const adapt::AdapterSet& set,
                   const adapt::AdapterFileInfo& info, const adapt::Components& components,
                   const AdapterWriteOptions& options);

}  // namespace ringlet::formats
