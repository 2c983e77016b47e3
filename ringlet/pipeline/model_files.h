// Finds the parts of a text-to-image model on disk: a diffusers folder or a single file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/formats/single_file.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::pipeline {

struct ModelComponent {
  Json config;
  std::string where;                               ///< the configuration's file, or the checkpoint
  std::shared_ptr<const nn::TensorStore> weights;  ///< null when the model has no such part
  explicit operator bool() const { return weights != nullptr; }
};

struct TokenizerFiles {
  std::filesystem::path folder;
  std::string pad_token;  ///< replaces the folder's own when not empty
};

struct ModelFiles {
  std::filesystem::path path;
  std::string kind;  ///< "Stable Diffusion 1", …
  std::string name;  ///< folder or file name, for metadata
  bool inpainting = false;
  bool zero_empty_negative = false;  ///< SDXL: no negative prompt means zeros, not ""
  ModelComponent unet, vae, text_encoder, text_encoder_2;
  TokenizerFiles tokenizer, tokenizer_2;
  Json scheduler;
  std::string scheduler_where;
  std::string prediction_source;                  ///< what says what the model predicts, for people
  std::vector<std::filesystem::path> unet_files;  ///< for the model hash
  std::vector<std::string> ignored;               ///< tensors that no part uses (single files)

  bool sdxl() const { return static_cast<bool>(text_encoder_2); }
};

struct ModelFileOptions {
  std::string variant;              ///< "fp16": prefer X.fp16.safetensors; "" = plain files first
  std::filesystem::path tokenizer;  ///< for single files, which carry no vocabulary
  std::optional<diffusion::Prediction> prediction;  ///< wins over what the model's files say
  std::optional<std::uint64_t> random_seed;  ///< parts of a folder without weights get random ones
  /// A single file that the caller has opened already, to be read instead of the path.
  std::shared_ptr<const io::SafetensorsFile> single_file = nullptr;
};

/// Opens (maps) a model. Throws Error(not_found | bad_format | unsupported) that names the file at
/// fault; .ckpt and .bin weights are refused with the way to convert them. What a single file says
/// of its prediction in contradiction, and what is guessed, is logged.
ModelFiles find_model(const std::filesystem::path& path, const ModelFileOptions& options = {});

/// A single-file checkpoint as it is read everywhere: with the configuration beside it. Throws as
/// formats::open_single_file.
formats::SingleFileModel read_single_file(
    const std::shared_ptr<const io::SafetensorsFile>& file,
    std::optional<diffusion::Prediction> prediction = std::nullopt);

/// The tokenizer's folder for a single file: `given`, else "tokenizer" beside it. Throws
/// Error(not_found).
std::filesystem::path single_file_tokenizer(const std::filesystem::path& file,
                                            const std::filesystem::path& given);

/// Wide weights by base name in a component folder: the plain file, the shard index, or a variant.
/// Throws Error(not_found | unsupported).
std::filesystem::path find_weights(const std::filesystem::path& folder, const std::string& base,
                                   const std::string& variant);

}  // namespace ringlet::pipeline
