// Writes the tiny models of make_pipeline.py to disk: as a diffusers folder and as one LDM file.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "tests/golden/formula.h"

namespace ringlet::golden {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

inline fs::path data_folder() { return fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data"; }

inline const Json& pipelines() {
  static const Json json = read_json_file(data_folder() / "pipelines.json");
  return json;
}

/// A component's tensors under diffusers' names.
inline Tensors component_tensors(const Json& model, const std::string& part) {
  Tensors out;
  for (const auto& [name, shape] : model.at("shapes").at(part).items())
    out[name] = weight(part + "." + name, shape.get<nn::Shape>());
  return out;
}

inline void write_json(const fs::path& path, const Json& json) {
  fs::create_directories(path.parent_path());
  write_file_atomically(path, json.dump(1));
}

inline void write_tokenizer(const fs::path& folder, const std::string& pad) {
  fs::create_directories(folder);
  for (const char* name : {"vocab.json", "merges.txt"})
    fs::copy_file(data_folder() / "tokenizer" / name, folder / name);
  Json config = read_json_file(data_folder() / "tokenizer/tokenizer_config.json");
  config["pad_token"] = pad;
  write_json(folder / "tokenizer_config.json", config);
}

/// Files of one component; `variant` as in "fp16".
inline void write_component(const fs::path& root, const Json& model, const std::string& part,
                            const std::string& base, const std::string& variant = {}) {
  write_json(root / part / "config.json", model.at(part));
  Tensors tensors = component_tensors(model, part);
  if (!variant.empty())
    for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kHalf);
  io::save_tensors(root / part / (base + (variant.empty() ? "" : "." + variant) + ".safetensors"),
                   tensors);
}

inline void write_folder(const fs::path& root, const std::string& key,
                         const std::string& variant = {}) {
  const Json& model = pipelines().at("models").at(key);
  const bool xl = !model.at("text_encoder_2").is_null();
  write_component(root, model, "unet", "diffusion_pytorch_model", variant);
  write_component(root, model, "vae", "diffusion_pytorch_model", variant);
  write_component(root, model, "text_encoder", "model", variant);
  write_tokenizer(root / "tokenizer", key == "sd2" ? "!" : "<|endoftext|>");
  Json index = {{"_class_name", xl ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline"},
                {"unet", {"diffusers", "UNet2DConditionModel"}},
                {"vae", {"diffusers", "AutoencoderKL"}},
                {"text_encoder", {"transformers", "CLIPTextModel"}},
                {"tokenizer", {"transformers", "CLIPTokenizer"}},
                {"scheduler", {"diffusers", "DDIMScheduler"}},
                {"safety_checker", {nullptr, nullptr}}};
  if (xl) {
    write_component(root, model, "text_encoder_2", "model", variant);
    write_tokenizer(root / "tokenizer_2", "!");
    index["text_encoder_2"] = {"transformers", "CLIPTextModelWithProjection"};
    index["tokenizer_2"] = {"transformers", "CLIPTokenizer"};
    index["force_zeros_for_empty_prompt"] = true;
  }
  write_json(root / "scheduler/scheduler_config.json", model.at("scheduler"));
  write_json(root / "model_index.json", index);
}

/// The LDM name of a diffusers name: the longest prefix of the table replaced.
inline std::string ldm_name(const std::string& name, const Json& table) {
  std::string best;
  for (const auto& [prefix, target] : table.items())
    if (name.starts_with(prefix) && prefix.size() > best.size()) best = prefix;
  return table.at(best).get<std::string>() + name.substr(best.size());
}

inline Tensors open_clip_tensors(const Tensors& text) {
  Tensors out = {
      {"token_embedding.weight", text.at("text_model.embeddings.token_embedding.weight")},
      {"positional_embedding", text.at("text_model.embeddings.position_embedding.weight")},
      {"ln_final.weight", text.at("text_model.final_layer_norm.weight")},
      {"ln_final.bias", text.at("text_model.final_layer_norm.bias")}};
  if (text.contains("text_projection.weight"))
    out["text_projection"] = text.at("text_projection.weight").t().contiguous();
  for (int layer = 0;; ++layer) {
    const std::string from = "text_model.encoder.layers." + std::to_string(layer) + ".";
    const std::string to = "transformer.resblocks." + std::to_string(layer) + ".";
    if (!text.contains(from + "layer_norm1.weight")) return out;
    for (const std::string kind : {"weight", "bias"}) {
      out[to + "ln_1." + kind] = text.at(from + "layer_norm1." + kind);
      out[to + "ln_2." + kind] = text.at(from + "layer_norm2." + kind);
      out[to + "mlp.c_fc." + kind] = text.at(from + "mlp.fc1." + kind);
      out[to + "mlp.c_proj." + kind] = text.at(from + "mlp.fc2." + kind);
      out[to + "attn.out_proj." + kind] = text.at(from + "self_attn.out_proj." + kind);
      out[to + "attn.in_proj_" + kind] = at::cat({text.at(from + "self_attn.q_proj." + kind),
                                                  text.at(from + "self_attn.k_proj." + kind),
                                                  text.at(from + "self_attn.v_proj." + kind)});
    }
  }
}

/// Files of Stable Diffusion 2 hold one layer and a projection that nobody reads.
inline Tensors with_unread_last_layer(Tensors text) {
  const Tensors copy = text;
  for (const auto& [name, tensor] : copy) {
    const std::size_t at = name.find(".layers.1.");
    if (at != std::string::npos) text[std::string(name).replace(at, 10, ".layers.2.")] = tensor;
  }
  text["text_projection.weight"] = at::zeros({64, 64});
  return text;
}

inline Tensors single_file_tensors(const std::string& key) {
  const Json& model = pipelines().at("models").at(key);
  Tensors out;
  const auto add = [&](const std::string& prefix, const Tensors& tensors) {
    for (const auto& [name, tensor] : tensors) out[prefix + name] = tensor;
  };
  for (const auto& [name, tensor] : component_tensors(model, "unet"))
    out["model.diffusion_model." + ldm_name(name, model.at("ldm_names").at("unet"))] = tensor;
  for (const auto& [name, tensor] : component_tensors(model, "vae")) {
    const bool kernel = name.find(".to_") != std::string::npos && tensor.dim() == 2;
    out["first_stage_model." + ldm_name(name, model.at("ldm_names").at("vae"))] =
        kernel ? tensor.unsqueeze(-1).unsqueeze(-1) : tensor;
  }
  const Tensors text = component_tensors(model, "text_encoder");
  if (key == "sdxl") {
    add("conditioner.embedders.0.transformer.", text);
    add("conditioner.embedders.1.model.",
        open_clip_tensors(component_tensors(model, "text_encoder_2")));
  } else if (key == "sd2") {
    add("cond_stage_model.model.", open_clip_tensors(with_unread_last_layer(text)));
  } else {
    add("cond_stage_model.transformer.", text);
  }
  out["alphas_cumprod"] = at::zeros({1000});  // of training; every loader ignores it
  return out;
}

}  // namespace ringlet::golden
