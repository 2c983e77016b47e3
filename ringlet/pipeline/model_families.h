// The families of text-to-image models that ringlet knows, and how one of them is opened.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

struct ModelFamily {
  std::string name;  ///< for messages: "Stable Diffusion 1, 2 and XL"

  /// Whether a folder, or a file, is a model of the family, by names and headers alone.
  bool (*is_folder)(const std::filesystem::path& folder);
  bool (*is_file)(const std::shared_ptr<const io::SafetensorsFile>& file);

  /// Loads a model that it recognizes. Throws Error that names what is missing or does not fit.
  std::unique_ptr<TextToImageModel> (*open)(const std::filesystem::path& path,
                                            const LoadOptions& options);

  /// What a model holds, as pipeline::describe says it, from headers and configurations alone.
  Json (*describe)(const std::filesystem::path& path, const std::string& variant);
};

/// All families, a row each.
std::span<const ModelFamily> model_families();

/// The family that recognizes a folder or a file, or null. Throws as SafetensorsFile::open.
const ModelFamily* find_family(const std::filesystem::path& path,
                               std::span<const ModelFamily> families = model_families());
const ModelFamily* find_family(const std::shared_ptr<const io::SafetensorsFile>& file,
                               std::span<const ModelFamily> families = model_families());

/// The family of a folder that must be a model. Throws Error(not_found | unsupported).
const ModelFamily& family_of_folder(const std::filesystem::path& folder,
                                    std::span<const ModelFamily> families = model_families());

/// Opens a model of whichever family it is. Throws Error(not_found | bad_format | unsupported |
/// mismatch) that names the file at fault; .ckpt and .bin weights are refused with the way to
/// convert them.
std::unique_ptr<TextToImageModel> open_text_to_image_model(
    const std::filesystem::path& path, const LoadOptions& options = {},
    std::span<const ModelFamily> families = model_families());

}  // namespace ringlet::pipeline
