// Finds the parts of Stable Diffusion 1, 2 and XL on disk: a diffusers folder or a single file.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/formats/ldm/single_file.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// The parts are "unet", "vae", "text_encoder" and for XL "text_encoder_2"; the tokenizers
/// "tokenizer" and "tokenizer_2".
struct StableDiffusionFiles : ModelFiles {
  bool inpainting = false;
  bool zero_empty_negative = false;  ///< SDXL: no negative prompt means zeros, not ""

  bool sdxl() const { return parts.contains("text_encoder_2"); }
};

/// Whether a folder is diffusers' of Stable Diffusion 1, 2 or XL. Throws as read_json_file.
bool is_stable_diffusion_folder(const std::filesystem::path& folder);

/// Whether a file has such a U-Net in LDM's layout.
bool is_stable_diffusion_file(const std::shared_ptr<const io::SafetensorsFile>& file);

/// A row of pipeline::describe: what such a folder or file holds. Reads headers and configurations
/// only, and needs no tokenizer.
Json describe_stable_diffusion(const std::filesystem::path& path, const std::string& variant);

/// Opens (maps) a model. Throws Error(not_found | bad_format | unsupported) that names the file at
/// fault; .ckpt and .bin weights are refused with the way to convert them. What a single file says
/// of its prediction in contradiction, and what is guessed, is logged.
StableDiffusionFiles find_stable_diffusion(const std::filesystem::path& path,
                                           const ModelFileOptions& options = {});

/// A single-file checkpoint as it is read everywhere: with the configuration beside it. Throws as
/// formats::open_single_file.
formats::SingleFileModel read_single_file(
    const std::shared_ptr<const io::SafetensorsFile>& file,
    std::optional<diffusion::Prediction> prediction = std::nullopt,
    const formats::PartsElsewhere& elsewhere = {});

}  // namespace ringlet::pipeline
