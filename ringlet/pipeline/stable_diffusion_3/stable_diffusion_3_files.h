// Finds the parts of Stable Diffusion 3 and 3.5 on disk.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// The parts are "transformer", "vae", "text_encoder" (CLIP-L), "text_encoder_2" (CLIP-G) and
/// mostly "text_encoder_3" (T5); the tokenizers "tokenizer", "tokenizer_2" and "tokenizer_3".
struct StableDiffusion3Files : ModelFiles {
  bool has_t5() const { return parts.contains("text_encoder_3"); }
};

/// Whether a folder is diffusers' of such a model. Throws as read_json_file.
bool is_stable_diffusion_3_folder(const std::filesystem::path& folder);

/// Whether a file has its transformer in the original layout.
bool is_stable_diffusion_3_file(const std::shared_ptr<const io::SafetensorsFile>& file);

/// Opens (maps) a model: a diffusers folder, or a single file with what it lacks given by the
/// options. Throws Error(not_found | bad_format | unsupported) that names the file at
/// fault.
StableDiffusion3Files find_stable_diffusion_3(const std::filesystem::path& path,
                                              const ModelFileOptions& options = {});

/// A row of pipeline::describe.
Json describe_stable_diffusion_3(const std::filesystem::path& path, const std::string& variant);

}  // namespace ringlet::pipeline
