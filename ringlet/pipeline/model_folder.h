// What the models' own save functions are made of.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/pipeline/model_files.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// Throws Error(invalid_argument) where a folder is the model's own.
void refuse_own_path(const ModelDescription& model, const std::filesystem::path& folder);

/// Writes JSON, indented. Throws Error(io | no_space).
void write_json(const std::filesystem::path& path, const Json& json);

/// Writes ROOT/NAME: config.json and the weights, with options.replacements of this name. Throws
/// Error(non_finite) that names the tensor, and Error(io | no_space).
void write_component(const std::string& name, const ModelComponent& part,
                     const std::filesystem::path& root, const SaveModelOptions& options);

/// Copies the files of a tokenizer. Throws Error(io).
void copy_tokenizer(const TokenizerFiles& files, const std::filesystem::path& target);

/// Writes the padding that takes the place of the folder's own into a copied tokenizer. Throws
/// Error(io | no_space).
void write_padding(const TokenizerFiles& files, const std::filesystem::path& target);

/// Writes a model as a diffusers folder: its parts, tokenizers and scheduler, and `index` last, so
/// that a folder without model_index.json is incomplete. Throws Error(invalid_argument) for the
/// model's own folder, and as write_component.
void write_model_folder(const ModelFiles& files, const Json& index,
                        const std::filesystem::path& root, const SaveModelOptions& options);

/// An entry of model_index.json for the scheduler that `files` have.
Json scheduler_entry(const ModelFiles& files, const std::string& otherwise);

/// Writes a model from a single file as one of the same layout, all of whose parts are
/// formats::RenamedStores over it. Throws as write_changed, and Error(unsupported) for a model from
/// a folder.
void write_single_file(const ModelFiles& files, const std::filesystem::path& out,
                       const Replacements& replacements);

/// Writes the tensors of the file `base`, as `store` has them, some replaced, under names that
/// `written` gives, and `added` ones. Throws Error(invalid_argument) where `out` is the base, and
/// Error(non_finite) that names a tensor.
void write_changed(const io::SafetensorsFile& base, const nn::TensorStore& store,
                   const std::map<std::string, at::Tensor>& replaced,
                   const std::map<std::string, at::Tensor>& added,
                   const std::function<std::string(const std::string&)>& written,
                   const std::filesystem::path& out);

}  // namespace ringlet::pipeline
