// The tiny models of make_flow_pipelines.py as diffusers folders, and what is asked of them.
#pragma once

#include <filesystem>
#include <string>

#include "ringlet/pipeline/generation.h"
#include "tests/golden/formula.h"
#include "tests/golden/tiny_model.h"

namespace ringlet::golden {

inline const Json& flow_pipelines() {
  static const Json json = read_json_file(data_folder() / "flow_pipelines.json");
  return json;
}

inline bool is_flux(const std::string& key) { return key.starts_with("flux"); }

inline void copy_t5_tokenizer(const fs::path& folder) {
  fs::create_directories(folder);
  for (const auto& entry : fs::directory_iterator(data_folder() / "tokenizers/t5"))
    fs::copy_file(entry.path(), folder / entry.path().filename());
}

/// A part of a model with T5's tokenizer where it is one.
inline void write_flow_text(const fs::path& root, const Json& model, const std::string& part,
                            Json& index) {
  write_component(root, model, part, "model");
  const std::string tokenizer = "tokenizer" + part.substr(std::string("text_encoder").size());
  const bool t5 = model.at(part).contains("d_model");
  if (t5)
    copy_t5_tokenizer(root / tokenizer);
  else
    write_tokenizer(root / tokenizer, part == "text_encoder" ? "<|endoftext|>" : "!");
  index[part] = {"transformers", model.at(part).at("architectures")[0]};
  index[tokenizer] = {"transformers", t5 ? "T5TokenizerFast" : "CLIPTokenizer"};
}

/// A model of either family by its configurations and shapes.
inline void write_flow_folder(const fs::path& root, const std::string& key, const Json& model) {
  Json index = {{"_class_name", is_flux(key) ? "FluxPipeline" : "StableDiffusion3Pipeline"},
                {"transformer",
                 {"diffusers", is_flux(key) ? "FluxTransformer2DModel" : "SD3Transformer2DModel"}},
                {"vae", {"diffusers", "AutoencoderKL"}},
                {"scheduler", {"diffusers", "FlowMatchEulerDiscreteScheduler"}},
                {"text_encoder_3", {nullptr, nullptr}},
                {"tokenizer_3", {nullptr, nullptr}}};
  write_component(root, model, "transformer", "diffusion_pytorch_model");
  write_component(root, model, "vae", "diffusion_pytorch_model");
  for (const char* part : {"text_encoder", "text_encoder_2", "text_encoder_3"})
    if (model.contains(part)) write_flow_text(root, model, part, index);
  write_json(root / "scheduler/scheduler_config.json", model.at("scheduler"));
  write_json(root / "model_index.json", index);
}

/// "sd3", "sd3_without_t5", "sd35", "flux_dev" or "flux_schnell".
inline void write_flow_folder(const fs::path& root, const std::string& key) {
  write_flow_folder(root, key, flow_pipelines().at("models").at(key));
}

/// What make_flow_pipelines.py asks of a model: two pictures, from latents of the formula.
inline pipeline::GenerateRequest flow_request(const std::string& key) {
  pipeline::GenerateRequest request;
  request.prompt = flow_pipelines().at("prompt");
  request.negative_prompt = flow_pipelines().at("negative").get<std::string>();
  request.seeds = {1, 2};
  request.latents = 1.7 * uniform(key + ".latents", {2, 4, 16, 12});
  if (key != "flux_schnell") request.steps = flow_pipelines().at("steps");
  return request;
}

}  // namespace ringlet::golden
