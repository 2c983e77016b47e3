// The tiny models of make_flow_pipelines.py as single files in their authors' layout.
#pragma once

#include <string>

#include <ATen/ops/zeros.h>

#include "ringlet/models/diffusion/patch_embedding.h"
#include "tests/golden/tiny_flow_model.h"

namespace ringlet::golden {

/// The layout as diffusers' converters of checkpoints read it (make_original_layout.py).
inline const Json& original_layout(const std::string& key) {
  static const Json json = read_json_file(data_folder() / "original_layout.json");
  return json.at(key == "sd3_without_t5" ? "sd3" : key);
}

/// What a file holds besides the transformer.
struct OriginalFile {
  std::string prefix = "model.diffusion_model.";
  bool clip = true;
  bool t5 = true;
  bool vae = true;
  bool positions = true;  ///< the table of Stable Diffusion 3
};

inline Tensors original_transformer(const std::string& key) {
  const Json& model = flow_pipelines().at("models").at(key);
  Tensors own = component_tensors(model, "transformer");
  if (!is_flux(key)) own["pos_embed.pos_embed"] = models::position_table(32, 12, 8);
  const Json& layout = original_layout(key);
  Tensors out;
  for (const auto& [name, shape] : layout.at("shapes").items())
    out[name] = at::zeros(shape.get<nn::Shape>());
  for (const auto& [name, piece] : layout.at("pieces").items()) {
    const at::Tensor& whole = out.at(piece.at(0));
    std::int64_t row = 0;
    for (const Json& range : piece.at(1)) {
      const std::int64_t begin = range.at(0), count = range.at(1);
      whole.narrow(0, begin, count).copy_(own.at(name).narrow(0, row, count));
      row += count;
    }
  }
  return out;
}

/// An autoencoder under LDM's names, without a prefix, as Black Forest Labs' ae.safetensors.
inline Tensors original_vae(const std::string& key) {
  const Json& names = pipelines().at("models").at("sd1").at("ldm_names").at("vae");
  Tensors out;
  for (const auto& [name, tensor] :
       component_tensors(flow_pipelines().at("models").at(key), "vae")) {
    const bool kernel = name.find(".to_") != std::string::npos && tensor.dim() == 2;
    out[ldm_name(name, names)] = kernel ? tensor.unsqueeze(-1).unsqueeze(-1) : tensor;
  }
  return out;
}

inline Tensors with_prefix(const std::string& prefix, const Tensors& tensors) {
  Tensors out;
  for (const auto& [name, tensor] : tensors) out[prefix + name] = tensor;
  return out;
}

inline Tensors original_file_tensors(const std::string& key, const OriginalFile& parts = {}) {
  const Json& model = flow_pipelines().at("models").at(key);
  Tensors out = with_prefix(parts.prefix, original_transformer(key));
  if (!parts.positions) out.erase(parts.prefix + "pos_embed");
  for (const char* part : {"text_encoder", "text_encoder_2", "text_encoder_3"}) {
    if (!model.contains(part)) continue;
    const bool t5 = model.at(part).contains("d_model");
    if (t5 ? !parts.t5 : !parts.clip) continue;
    const std::string name = t5                                    ? "t5xxl"
                             : part == std::string("text_encoder") ? "clip_l"
                                                                   : "clip_g";
    out.merge(
        with_prefix("text_encoders." + name + ".transformer.", component_tensors(model, part)));
  }
  if (parts.vae) out.merge(with_prefix("first_stage_model.", original_vae(key)));
  return out;
}

/// The tokenizers of a folder's model beside a file, CLIP's and T5's.
inline void write_tokenizers_beside(const fs::path& folder) {
  write_tokenizer(folder / "tokenizer", "<|endoftext|>");
  copy_t5_tokenizer(folder / "tokenizer_3");
}

}  // namespace ringlet::golden
