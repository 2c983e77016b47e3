#include "ringlet/pipeline/describe.h"

#include <algorithm>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/formats/adapter_kind.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/checkpoint_parts.h"
#include "ringlet/pipeline/model_families.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

Json describe_file(const fs::path& path) {
  if (path.extension() == ".json" && path.stem().extension() == ".index")
    return describe(path.has_parent_path() ? path.parent_path() : fs::path("."));
  if (const ModelFamily* family = find_family(path)) return family->describe(path, "");
  const auto file = io::SafetensorsFile::open(path);
  return {{"path", path.string()},
          {"metadata", file->metadata()},
          {"notes", Json::array()},
          {"kind", formats::file_kind(*file)},
          {"components", components_of(*file, formats::adapter_component)}};
}

Json describe_any(const fs::path& path, const std::string& variant) {
  if (!fs::exists(path))
    throw Error(ErrorCode::not_found, path.string(), "there is no such file or folder");
  if (!fs::is_directory(path)) return describe_file(path);
  if (fs::exists(path / "model_index.json")) return family_of_folder(path).describe(path, variant);

  std::vector<fs::path> weights;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".safetensors") weights.push_back(entry.path());
  if (weights.empty())
    throw Error(ErrorCode::not_found, path.string(), "ringlet recognises nothing here",
                "name a model folder (with model_index.json) or a .safetensors file");
  std::ranges::sort(weights);
  Json out = {{"path", path.string()},
              {"kind", "weights of one network"},
              {"metadata", Json::object()},
              {"notes", Json::array()}};
  if (fs::exists(path / "adapter_config.json")) out["kind"] = "adapter folder (PEFT)";
  if (const fs::path config = path / "config.json"; fs::exists(config)) {
    const std::string type = models::network_type(read_json_file(config));
    if (!type.empty()) out["kind"] = "network of type " + type;
  }
  Json components = Json::array();
  for (const fs::path& file : weights)
    components.push_back(content_of(file).json(file.filename().string()));
  out["components"] = components;
  return out;
}

}  // namespace

void PartContent::add(const io::TensorInfo& info) {
  parameters += info.elements();
  ++tensors;
  bytes += info.end - info.begin;
  dtypes[std::string(io::to_string(info.dtype))] += info.elements();
}

Json PartContent::json(const std::string& name) const {
  return {{"name", name},
          {"parameters", parameters},
          {"tensors", tensors},
          {"bytes", bytes},
          {"dtypes", dtypes}};
}

PartContent content_of(const fs::path& weights) {
  PartContent content;
  const auto store = nn::FileStore::open(weights);
  for (const auto& file : store->files())
    for (const io::TensorInfo& info : file->tensors()) content.add(info);
  return content;
}

Json components_of(const io::SafetensorsFile& file, std::string (*part_of)(const std::string&)) {
  std::map<std::string, PartContent> parts;
  for (const io::TensorInfo& info : file.tensors()) parts[part_of(info.name)].add(info);
  Json components = Json::array();
  for (const auto& [name, content] : parts) components.push_back(content.json(name));
  return components;
}

Json describe_model_folder(const ModelFiles& files, const std::vector<std::string>& parts,
                           const std::string& variant) {
  Json components = Json::array();
  for (const std::string& name : parts)
    if (const auto part = files.parts.find(name); part != files.parts.end())
      components.push_back(
          content_of(find_weights(files.path / name, weights_base(part->second.role), variant))
              .json(name));
  Json out = {{"path", files.path.string()},
              {"kind", files.kind + " model folder"},
              {"components", components},
              {"metadata", Json::object()},
              {"notes", Json::array()}};
  add_schedule(out, files.scheduler, files.scheduler_where, files.prediction_source);
  if (out.contains("schedule")) out["schedule"]["source"] = "scheduler_config.json";
  return out;
}

void add_schedule(Json& out, const Json& scheduler, const std::string& where,
                  const std::string& prediction_source) {
  out["prediction"] = {
      {"type", json_value<std::string>(scheduler, "prediction_type", "epsilon", where)},
      {"source", prediction_source}};
  try {
    const auto process = diffusion::open_noise_process(scheduler, where);
    const diffusion::SamplerChoice sampler = diffusion::default_sampler(*process);
    out["prediction"]["type"] = diffusion::prediction_name(process->prediction());
    if (process->prediction() == diffusion::Prediction::flow)
      out["prediction"]["source"] = "the scheduler's class";
    out["sampler"] = sampler.name();
    out["schedule"] = process->description(sampler.entry->grid);
  } catch (const Error& error) {
    out["notes"].push_back(std::string("it cannot generate pictures: ") + error.what());
  }
}

Json describe(const fs::path& path, const std::string& variant) {
  return nn::with_ringlet_errors(path.string(), [&] { return describe_any(path, variant); });
}

Json describe(const fs::path& path, const ModelFileOptions& files) {
  Json out = describe(path, files.variant);
  const auto add = [&](const fs::path& given, NetworkRole role, const std::string& name) {
    const fs::path weights =
        fs::is_directory(given) ? find_weights(given, weights_base(role), "") : given;
    out["components"].push_back(content_of(weights).json(name));
  };
  nn::with_ringlet_errors(path.string(), [&] {
    for (const std::string& given : files.text_encoders)
      add(given, NetworkRole::text_encoder, given_text_encoders(given));
    if (!files.vae.empty()) add(files.vae, NetworkRole::autoencoder, "vae (given)");
  });
  return out;
}

}  // namespace ringlet::pipeline
