#include "ringlet/pipeline/model_folder.h"

#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/formats/text_encoder_file.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

/// A tensor as it goes into the file.
at::Tensor checked(const std::string& name, const at::Tensor& tensor, at::ScalarType dtype) {
  at::Tensor value = tensor.detach().to(at::kCPU, dtype);
  if (!value.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, name,
                "the tensor holds NaN or values too large for the type it is written in",
                "this part was not written; save in a wider type");
  return value;
}

/// Tensors of a part under the names of the single file that it comes from.
std::map<std::string, at::Tensor> in_origin(const nn::TensorStore& part,
                                            const std::string& component,
                                            const std::map<std::string, at::Tensor>& tensors) {
  const auto* completed = dynamic_cast<const formats::StoreWith*>(&part);
  const auto& store =
      dynamic_cast<const formats::RenamedStore&>(completed != nullptr ? completed->inner() : part);
  for (const auto& [name, tensor] : tensors)
    if (completed != nullptr && completed->adds(name))
      throw Error(ErrorCode::unsupported, component + "." + name,
                  "changes, but the checkpoint has no such tensor",
                  "give a folder name for the result");
  return store.in_origin(tensors);
}

void check_finite(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, name, "the merged weight holds NaN or infinite values",
                "nothing was written; a smaller strength may help");
}

}  // namespace

void write_json(const fs::path& path, const Json& json) {
  write_file_atomically(path, json.dump(2) + "\n");
}

void write_component(const std::string& name, const ModelComponent& part, const fs::path& root,
                     const SaveModelOptions& options) {
  std::map<std::string, at::Tensor> tensors;
  for (const std::string& key : part.weights->names())
    if (const auto stored = part.weights->find(key, {}, {}))
      tensors.emplace(key, options.dtype && stored->is_floating_point()
                               ? checked(name + "." + key, *stored, *options.dtype)
                               : *stored);
  if (const auto replaced = options.replacements.find(name); replaced != options.replacements.end())
    for (const auto& [key, tensor] : replaced->second) {
      const auto stored = tensors.find(key);
      const at::ScalarType own =
          stored == tensors.end() ? tensor.scalar_type() : stored->second.scalar_type();
      tensors[key] = checked(name + "." + key, tensor, options.dtype.value_or(own));
    }
  const bool flat = formats::lacks_text_model_level(*part.weights);
  std::map<std::string, at::Tensor> in_file;
  for (auto& [key, tensor] : tensors)
    in_file.emplace(flat ? nn::without_text_model_level(key) : key, std::move(tensor));
  make_folder(root / name);
  write_json(root / name / "config.json", part.config);
  io::save_tensors(root / name / (std::string(weights_base(part.role)) + ".safetensors"), in_file,
                   {{"format", "pt"}});
}

void copy_tokenizer(const TokenizerFiles& files, const fs::path& target) {
  make_folder(target);
  for (const char* name : {"vocab.json", "merges.txt", "spiece.model", "tokenizer.json",
                           "tokenizer_config.json", "special_tokens_map.json"}) {
    std::error_code problem;
    if (!fs::exists(files.folder / name) || fs::equivalent(files.folder, target, problem)) continue;
    fs::copy_file(files.folder / name, target / name, fs::copy_options::overwrite_existing,
                  problem);
    if (problem)
      throw Error(ErrorCode::io, (target / name).string(),
                  "the file cannot be written: " + problem.message());
  }
}

void write_padding(const TokenizerFiles& files, const fs::path& target) {
  std::error_code problem;
  if (files.pad_token.empty() || fs::equivalent(files.folder, target, problem)) return;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const fs::path path = target / name;
    const bool is_there = fs::exists(path);
    if (!is_there && name != std::string_view("tokenizer_config.json")) continue;
    Json json = is_there ? read_json_file(path) : Json::object();
    json["pad_token"] = files.pad_token;
    write_json(path, json);
  }
}

void refuse_own_path(const ModelDescription& model, const fs::path& folder) {
  std::error_code problem;
  if (fs::equivalent(folder, model.path, problem))
    throw Error(ErrorCode::invalid_argument, folder.string(), "this is the model itself",
                "write to another folder");
}

Json scheduler_entry(const ModelFiles& files, const std::string& otherwise) {
  return {"diffusers", json_value<std::string>(files.scheduler, "_class_name", otherwise,
                                               files.scheduler_where)};
}

void write_model_folder(const ModelFiles& files, const Json& index, const fs::path& root,
                        const SaveModelOptions& options) {
  refuse_own_path(files, root);
  make_folder(root);
  for (const auto& [name, part] : files.parts) write_component(name, part, root, options);
  for (const auto& [name, tokenizer] : files.tokenizers) {
    copy_tokenizer(tokenizer, root / name);
    write_padding(tokenizer, root / name);
  }
  make_folder(root / "scheduler");
  write_json(root / "scheduler" / "scheduler_config.json", files.scheduler);
  write_json(root / "model_index.json", index);
}

void write_single_file(const ModelFiles& files, const fs::path& out,
                       const Replacements& replacements) {
  if (fs::is_directory(files.path))
    throw Error(ErrorCode::unsupported, out.string(),
                "a model folder cannot be merged into a single file",
                "give a folder name for the result");
  std::map<std::string, at::Tensor> in_file;
  for (const auto& [component, tensors] : replacements) {
    const ModelComponent& part = files.parts.at(component);
    if (part.where != files.path.string())
      throw Error(ErrorCode::unsupported, out.string(),
                  "\"" + component + "\" changes, which is not in " + files.path.string() +
                      " but in " + part.where,
                  "give a folder name for the result");
    in_file.merge(in_origin(*part.weights, component, tensors));
  }
  const auto file = io::SafetensorsFile::open(files.path);
  const auto store = formats::readable_weights(std::make_shared<nn::FileStore>(std::vector{file}));
  write_changed(*file, *store, in_file, {}, std::identity(), out);
}

void write_changed(const io::SafetensorsFile& base, const nn::TensorStore& store,
                   const std::map<std::string, at::Tensor>& replaced,
                   const std::map<std::string, at::Tensor>& added,
                   const std::function<std::string(const std::string&)>& written,
                   const fs::path& out) {
  std::error_code problem;
  if (fs::equivalent(base.path(), out, problem))
    throw Error(ErrorCode::invalid_argument, out.string(), "this is the model itself",
                "write to another file");
  std::map<std::string, at::Tensor> tensors = added;
  for (const auto& [name, tensor] : added) check_finite(name, tensor);
  for (const std::string& name : store.names()) {
    const auto found = replaced.find(name);
    if (found != replaced.end()) check_finite(name, found->second);
    tensors.emplace(written(name),
                    found != replaced.end() ? found->second : store.find(name, {}, {}).value());
  }
  io::Metadata metadata = base.metadata();
  metadata.erase("_quantization_metadata");  // of fp8, which is widened here
  io::save_tensors(out, tensors, metadata);
}

}  // namespace ringlet::pipeline
