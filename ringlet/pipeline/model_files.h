// The files of a text-to-image model: what the finders of all families share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::pipeline {

/// What a network of a model is for. Full training changes the denoiser, and text encoders where
/// that is asked for; adapters go onto both; the autoencoder stays as it is.
enum class NetworkRole { denoiser, text_encoder, autoencoder };

/// What a model is called and how it is recognized again.
struct ModelDescription {
  std::filesystem::path path;
  std::string kind;  ///< "Stable Diffusion 1", …
  std::string name;  ///< folder or file name, for metadata
  /// Whose hash stands for the model: the single file, or the denoiser's. Empty for random weights.
  std::vector<std::filesystem::path> hash_files;
};

struct ModelComponent {
  NetworkRole role = NetworkRole::denoiser;
  Json config;
  std::string where;                               ///< the configuration's file, or the checkpoint
  std::shared_ptr<const nn::TensorStore> weights;  ///< never null
};

struct TokenizerFiles {
  std::filesystem::path folder;
  std::string pad_token = {};  ///< replaces the folder's own when not empty
};

struct ModelFiles : ModelDescription {
  std::map<std::string, ModelComponent> parts;  ///< networks by name: "unet", "text_encoder", …
  std::map<std::string, TokenizerFiles> tokenizers;  ///< by name: "tokenizer", …
  Json scheduler;
  std::string scheduler_where;
  std::string prediction_source;     ///< what says what the model predicts, for people
  std::vector<std::string> ignored;  ///< tensors that no part uses (single files)
};

struct ModelFileOptions {
  std::string variant;              ///< "fp16": prefer X.fp16.safetensors; "" = plain files first
  std::filesystem::path tokenizer;  ///< for single files, which carry no vocabulary: CLIP's
  std::filesystem::path t5_tokenizer = {};
  /// Files or folders of text encoders, in any order, and of the autoencoder: in the place of the
  /// model's own, which a single file may lack.
  std::vector<std::string> text_encoders = {};
  std::filesystem::path vae = {};
  std::int64_t text_tokens = 0;  ///< of a prompt that T5 reads; 0 = as the family has it
  std::optional<diffusion::Prediction> prediction;  ///< wins over what the model's files say
  /// The betas are rescaled to end in pure noise (Lin et al. 2024, algorithm 1), in training and in
  /// sampling, which then begins there; for Stable Diffusion that predicts v.
  bool zero_terminal_snr = false;
  std::optional<std::uint64_t> random_seed;  ///< parts of a folder without weights get random ones
  /// A single file that the caller has opened already, to be read instead of the path.
  std::shared_ptr<const io::SafetensorsFile> single_file = nullptr;
};

/// "variant", "tokenizer", "t5_tokenizer", "text_encoder" and "vae".
void describe(OptionList& list, ModelFileOptions& files);

/// "text_tokens".
void describe_text_tokens(OptionList& list, ModelFileOptions& files);

/// "prediction": epsilon or v, in any spelling that diffusion::find_prediction knows; and
/// "zero_terminal_snr".
void describe_prediction(OptionList& list, ModelFileOptions& files);

/// The last part of a path, of "MODEL/" too.
std::string folder_name(const std::filesystem::path& folder);

/// Refuses what no family reads: nothing at all, a path that does not exist, pickled weights, and
/// options that are for the other of folder and single file. Throws Error(invalid_argument |
/// not_found | unsupported).
void check_model_path(const std::filesystem::path& path, const ModelFileOptions& options);

/// "_class_name" of a diffusers folder's model_index.json. Throws Error(not_found) where there is
/// none, and Error(bad_format).
std::string pipeline_class(const std::filesystem::path& folder);

/// Whether a folder has a model_index.json with one of these classes.
bool has_pipeline_class(const std::filesystem::path& folder, const std::vector<std::string>& known);

/// Whether a model_index.json has this part.
bool has_part(const Json& index, const std::string& name);

/// The base name of a network's weight files, as its library writes them: "model" for those of
/// transformers, "diffusion_pytorch_model" for those of diffusers.
const char* weights_base(NetworkRole role);

/// A network of a diffusers folder; with options.random_seed it may lack weights. Throws as
/// find_weights and read_json_file.
ModelComponent open_component(const std::filesystem::path& root, const std::string& name,
                              NetworkRole role, const ModelFileOptions& options);

/// A tokenizer's folder. Throws Error(not_found).
TokenizerFiles open_tokenizer_folder(const std::filesystem::path& root, const std::string& name);

/// A part of a diffusers folder.
struct FolderPart {
  std::string name;
  NetworkRole role = NetworkRole::denoiser;
  std::string tokenizer = {};  ///< of a text encoder
  bool optional = false;       ///< models work without it
};

/// Opens the parts of a diffusers folder whose model_index.json is `index`, with their tokenizers
/// and scheduler, under today's names of tensors; path and name of `files`, too. Throws
/// Error(unsupported) that names a part which the index lacks, and as open_component.
void open_folder(ModelFiles& files, const std::filesystem::path& root, const Json& index,
                 const std::vector<FolderPart>& parts, const ModelFileOptions& options);

/// The folder of CLIP's tokenizer for a single file: `given`, else "tokenizer" beside it. Throws
/// Error(not_found).
std::filesystem::path single_file_tokenizer(const std::filesystem::path& file,
                                            const std::filesystem::path& given);

/// The folder of T5's: options.t5_tokenizer, options.tokenizer where it has T5's files, else a
/// folder beside the model or beside the file `encoder` ("tokenizer_3" of Stable Diffusion 3,
/// "tokenizer_2" of FLUX, "tokenizer"), or that folder itself. Throws Error(not_found).
std::filesystem::path find_t5_tokenizer(const std::filesystem::path& model,
                                        const std::filesystem::path& encoder,
                                        const ModelFileOptions& options);

/// The options with the tokenizers that a single file is opened with, where they are found beside
/// it: for a copy of it in another folder.
ModelFileOptions with_found_tokenizers(const std::filesystem::path& model,
                                       const ModelFileOptions& options);

/// Wide weights by base name in a component folder: the plain file, the shard index, or a variant.
/// Throws Error(not_found | unsupported).
std::filesystem::path find_weights(const std::filesystem::path& folder, const std::string& base,
                                   const std::string& variant);

}  // namespace ringlet::pipeline
