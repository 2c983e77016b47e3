// Finds the parts of FLUX.1 on disk.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// The parts are "transformer", "vae", "text_encoder" (CLIP-L) and "text_encoder_2" (T5); the
/// tokenizers "tokenizer" and "tokenizer_2".
struct FluxFiles : ModelFiles {
  bool dev = false;  ///< distilled with guidance, whose scale it is told
};

/// Whether a folder is diffusers' of FLUX.1. Throws as read_json_file.
bool is_flux_folder(const std::filesystem::path& folder);

/// Whether a file has its transformer in the original layout.
bool is_flux_file(const std::shared_ptr<const io::SafetensorsFile>& file);

/// Opens (maps) a model: a diffusers folder, or a single file with what it lacks given by the
/// options. Throws Error(not_found | bad_format | unsupported) that names the file at
/// fault.
FluxFiles find_flux(const std::filesystem::path& path, const ModelFileOptions& options = {});

/// A row of pipeline::describe.
Json describe_flux(const std::filesystem::path& path, const std::string& variant);

}  // namespace ringlet::pipeline
