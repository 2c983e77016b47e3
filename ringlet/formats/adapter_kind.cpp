#include "ringlet/formats/adapter_kind.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/formats/adapter_tensors.h"
#include "ringlet/formats/unread_adapter.h"

namespace ringlet::formats {
namespace {

bool any_name(const io::SafetensorsFile& file, std::string_view part) {
  return std::ranges::any_of(file.tensors(), [&](const io::TensorInfo& info) {
    return info.name.find(part) != std::string::npos;
  });
}

/// Who writes names like these.
std::string dialect(const io::SafetensorsFile& file) {
  if (any_name(file, "base_model.model.")) return "PEFT";
  if (any_name(file, "unet:0:") || any_name(file, "text_encoder:0:")) return "cloneofsimo";
  for (const io::TensorInfo& info : file.tensors())
    if (const Naming naming = naming_of(info.name);
        naming == Naming::xlabs || naming == Naming::original)
      return name_of(naming);
  if (any_name(file, "lycoris_")) return "LyCORIS";
  if (any_name(file, "lora_unet_") || any_name(file, "lora_te") || any_name(file, "oft_unet_") ||
      any_name(file, "lora_transformer_"))
    return "kohya";
  if (any_name(file, "diffusion_model.") || any_name(file, "text_encoders.")) return "ComfyUI";
  if (file.metadata().contains("lora_adapter_metadata") || any_name(file, ".processor.") ||
      any_name(file, "unet.") || any_name(file, "text_encoder.") || any_name(file, "transformer."))
    return "diffusers";
  return "";
}

bool only_names(const io::SafetensorsFile& file, const std::vector<std::string_view>& names) {
  return std::ranges::all_of(file.tensors(), [&](const io::TensorInfo& info) {
    return std::ranges::find(names, info.name) != names.end();
  });
}

bool is_bundled_embedding(const io::TensorInfo& info) {
  return info.name.starts_with(kBundledEmbedding);
}

}  // namespace

std::string file_kind(const io::SafetensorsFile& file) {
  if (file.tensors().empty()) return "empty safetensors file";
  if (const auto own = file.metadata().find("ringlet.method"); own != file.metadata().end())
    return own->second + " adapter (ringlet)";
  if (const auto own = file.metadata().find("format");
      own != file.metadata().end() && own->second == "ringlet.train_state")
    return "training checkpoint (ringlet)";
  if (only_names(file, {"emb_params", "clip_l", "clip_g"}) ||
      std::ranges::all_of(file.tensors(), is_bundled_embedding))
    return "textual inversion";
  if (any_name(file, "control_model.") || any_name(file, "controlnet_cond_embedding"))
    return "ControlNet";
  const std::string name = told_method(file);
  if (!name.empty()) {
    const std::string by = dialect(file);
    const bool bundle = std::ranges::any_of(file.tensors(), is_bundled_embedding);
    return name + " adapter" + (by.empty() ? "" : " (" + by + ")") +
           (bundle ? " with embeddings" : "");
  }
  if (file.find("latents") != nullptr && file.tensors().size() == 1) return "latents";
  return "tensors";
}

std::string adapter_component(const std::string& name) {
  if (name.starts_with("lora_te2_encoder_block_")) return "T5";  // FLUX's in OneTrainer
  if (names_transformer(name)) return "transformer";
  static const std::vector<std::pair<const char*, const char*>> kPrefixes = {
      {"lora_te3_", "T5"},
      {"text_encoder_3.", "text_encoder_3"},
      {"text_encoders.t5xxl.", "T5"},
      {"t5xxl.", "T5"},
      {"lora_te2_", "text_encoder_2"},
      {"text_encoder_2.", "text_encoder_2"},
      {"lora_te1_", "text_encoder"},
      {"lora_te_", "text_encoder"},
      {"text_encoder.", "text_encoder"},
      {"text_encoder:", "text_encoder"},
      {"text_encoders.clip_g.", "text_encoder_2"},
      {"clip_g.", "text_encoder_2"},
      {"text_encoders.", "text_encoder"},
      {"clip_l.", "text_encoder"},
      {"clip_h.", "text_encoder"},
      {kBundledEmbedding, "embeddings"},
      {"lora_unet_", "unet"},
      {"oft_unet_", "unet"},
      {"diffusion_model.", "unet"},
      {"unet.", "unet"},
      {"transformer.", "transformer"},
      {"lora_transformer_", "transformer"},
      {"unet:", "unet"},
      {"lycoris_", "unet"},
      {"control.", "control encoder"}};
  for (const auto& [prefix, component] : kPrefixes)
    if (name.starts_with(prefix)) return component;
  return "tensors";
}

}  // namespace ringlet::formats
