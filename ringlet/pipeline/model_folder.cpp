#include "ringlet/pipeline/model_folder.h"

#include <system_error>
#include <utility>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"

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
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json"}) {
    std::error_code problem;
    if (!fs::exists(files.folder / name) || fs::equivalent(files.folder, target, problem)) continue;
    fs::copy_file(files.folder / name, target / name, fs::copy_options::overwrite_existing,
                  problem);
    if (problem)
      throw Error(ErrorCode::io, (target / name).string(),
                  "the file cannot be written: " + problem.message());
  }
}

void refuse_own_path(const ModelDescription& model, const fs::path& folder) {
  std::error_code problem;
  if (fs::equivalent(folder, model.path, problem))
    throw Error(ErrorCode::invalid_argument, folder.string(), "this is the model itself",
                "write to another folder");
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
  io::save_tensors(out, tensors, base.metadata());
}

}  // namespace ringlet::pipeline
