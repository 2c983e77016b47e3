// The networks of a single file and of files beside it, put together to a model.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/formats/ldm/ldm_vae.h"
#include "ringlet/formats/original_layout.h"
#include "ringlet/formats/text_encoder_file.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// OpenCLIP encoders (Stable Diffusion 2, the second of XL and 3) were trained with this padding.
inline constexpr const char* kOpenClipPadding = "!";

/// A text encoder of a family.
struct TextSlot {
  formats::TextEncoderKind kind;
  std::string part;       ///< "text_encoder_3"
  std::string tokenizer;  ///< "tokenizer_3"
  bool optional = false;  ///< models work without it
};

/// What a family takes from a file besides its denoiser.
struct CheckpointFamily {
  std::string name;  ///< for messages: "Stable Diffusion 3"
  formats::TransformerFamily transformer = formats::TransformerFamily::none;
  std::vector<TextSlot> text = {};
  formats::ClipProjection projection = formats::ClipProjection::needed;
  formats::LatentScale latents = {};
};

/// Whether a file has a transformer in its original layout. Reads names alone.
bool has_original_transformer(const io::SafetensorsFile& file, formats::TransformerFamily family);

/// Finds the parts of a single file in the original layout, of options.text_encoders and of
/// options.vae, without tokenizers and scheduler. Parts that are nowhere are left out. Throws as
/// open_original_transformer, find_text_encoders and readable_weights.
void find_checkpoint_parts(ModelFiles& files, const std::filesystem::path& path,
                           const ModelFileOptions& options, const CheckpointFamily& family);

/// Puts the networks of options.text_encoders and options.vae in the place of `files`' own. Throws
/// Error(invalid_argument) for a text encoder that the family does not take, or two for one place;
/// Error(unsupported | bad_format) for files without such networks; and as readable_weights.
void use_given_parts(ModelFiles& files, const ModelFileOptions& options,
                     const CheckpointFamily& family);

/// Throws Error(not_found) that names a part which is neither in the file nor given.
void require_parts(const ModelFiles& files, const CheckpointFamily& family);

/// Finds the tokenizers of text encoders that have none yet. Throws as single_file_tokenizer and
/// find_t5_tokenizer.
void find_tokenizers(ModelFiles& files, const ModelFileOptions& options,
                     const CheckpointFamily& family);

/// What a file or folder of options.text_encoders holds, for people: "T5 (given)". Throws as
/// use_given_parts.
std::string given_text_encoders(const std::filesystem::path& path);

/// A row of pipeline::describe for such a file: "components" by part, and in "notes" what is
/// missing. `files` as find_checkpoint_parts has found them, with kind and scheduler.
Json describe_checkpoint(const ModelFiles& files, const CheckpointFamily& family);

}  // namespace ringlet::pipeline
