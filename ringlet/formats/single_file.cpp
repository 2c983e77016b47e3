#include "ringlet/formats/single_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include <ATen/ops/std.h>

#include "ringlet/core/error.h"
#include "ringlet/formats/ldm_text.h"
#include "ringlet/formats/ldm_unet.h"
#include "ringlet/formats/ldm_vae.h"
#include "ringlet/formats/renamed_store.h"

namespace ringlet::formats {
namespace {

const std::string kUNet = "model.diffusion_model.";
const std::string kVae = "first_stage_model.";
const std::string kClip = "cond_stage_model.transformer.";
const std::string kOpenClip = "cond_stage_model.model.";
const std::string kXlClip = "conditioner.embedders.0.transformer.";
const std::string kXlOpenClip = "conditioner.embedders.1.model.";
const std::string kRefinerText = "conditioner.embedders.0.model.";

bool has_prefix(const nn::TensorStore& store, const std::string& prefix) {
  const auto names = store.names();
  return std::ranges::any_of(names, [&](const std::string& n) { return n.starts_with(prefix); });
}

/// Families that users will try, by a tensor that only they have.
void refuse_other_families(const nn::TensorStore& store) {
  static constexpr std::array<std::pair<const char*, const char*>, 8> kFamilies = {{
      {"model.diffusion_model.joint_blocks.", "Stable Diffusion 3"},
      {"joint_blocks.", "Stable Diffusion 3"},
      {"model.diffusion_model.double_blocks.", "Flux"},
      {"double_blocks.", "Flux"},
      {"control_model.", "a ControlNet"},
      {"lora_unet_", "a LoRA adapter"},
      {"lora_te", "a LoRA adapter"},
      {"edm_mean", "Playground v2.5"},
  }};
  for (const auto& [prefix, family] : kFamilies)
    if (has_prefix(store, prefix))
      throw Error(
          ErrorCode::unsupported, store.description(),
          std::string("this file is ") + family + ", not a Stable Diffusion 1, 2 or XL checkpoint",
          "give the model itself; ringlet inspect FILE tells what a file holds");
  if (has_prefix(store, kRefinerText))
    throw Error(ErrorCode::unsupported, store.description(),
                "this is the SDXL refiner, which cannot make pictures from text alone",
                "use the SDXL base model");
}

/// Stable Diffusion 2 comes as epsilon and as v model with the same shapes; the v models' last
/// norm has clearly larger biases. Found by others on the published checkpoints.
bool looks_like_v_model(const nn::TensorStore& store) {
  const auto bias =
      store.find(kUNet + "output_blocks.11.1.transformer_blocks.0.norm1.bias", {}, {});
  if (!bias || bias->is_meta()) return true;
  return bias->to(at::kFloat).std().item<double>() > 0.09;
}

std::string prediction_type(const nn::TensorStore& store, const LdmUNet& unet,
                            const io::Metadata& metadata) {
  const auto stated = metadata.find("modelspec.prediction_type");
  if (stated != metadata.end()) return stated->second == "v" ? "v_prediction" : "epsilon";
  if (store.find("v_pred", {}, {})) return "v_prediction";
  const bool sd2 = unet.linear_projection && unet.label_width == 0;
  return sd2 && looks_like_v_model(store) ? "v_prediction" : "epsilon";
}

Json scheduler_json(const nn::TensorStore& store, bool sdxl, const std::string& prediction) {
  return {{"_class_name", sdxl ? "EulerDiscreteScheduler" : "PNDMScheduler"},
          {"beta_start", 0.00085},
          {"beta_end", 0.012},
          {"beta_schedule", "scaled_linear"},
          {"num_train_timesteps", 1000},
          {"prediction_type", prediction},
          {"rescale_betas_zero_snr", store.find("ztsnr", {}, {}).has_value()},
          {"set_alpha_to_one", false},
          {"skip_prk_steps", true},
          {"steps_offset", 1},
          {"timestep_spacing", "leading"}};
}

SingleFileComponent component(const std::shared_ptr<const nn::TensorStore>& store, Json config,
                              std::map<std::string, TensorOrigin> origins) {
  return {std::move(config), std::make_shared<RenamedStore>(store, std::move(origins))};
}

SingleFileComponent component(const std::shared_ptr<const nn::TensorStore>& store,
                              LdmTextEncoder text) {
  return component(store, std::move(text.config), std::move(text.origins));
}

std::vector<std::string> ignored_tensors(const nn::TensorStore& store) {
  std::vector<std::string> ignored;
  for (const std::string& name : store.names()) {
    const bool used =
        std::ranges::any_of(std::array{kUNet, kVae, kClip, kOpenClip, kXlClip, kXlOpenClip},
                            [&](const std::string& prefix) { return name.starts_with(prefix); });
    if (!used) ignored.push_back(name);
  }
  return ignored;
}

}  // namespace

bool is_single_file_model(const nn::TensorStore& store) { return has_prefix(store, kUNet); }

SingleFileModel open_single_file(const std::shared_ptr<const nn::TensorStore>& store,
                                 const io::Metadata& metadata) {
  refuse_other_families(*store);
  if (!is_single_file_model(*store))
    throw Error(ErrorCode::unsupported, store->description(),
                "this is no single-file Stable Diffusion checkpoint: no tensor begins with \"" +
                    kUNet + "\"",
                "give a checkpoint file, or a model folder with model_index.json");
  const LdmUNet unet = read_ldm_unet(*store, kUNet);
  const bool sdxl = has_prefix(*store, kXlOpenClip);
  const bool open_clip = has_prefix(*store, kOpenClip);
  if (!sdxl && !open_clip && !has_prefix(*store, kClip))
    throw Error(ErrorCode::unsupported, store->description(),
                "the file holds a U-Net without its text encoder",
                "use the full checkpoint, or a model folder");
  if (!has_prefix(*store, kVae))
    throw Error(ErrorCode::unsupported, store->description(),
                "the file holds no autoencoder (first_stage_model)",
                "use a checkpoint with a baked-in VAE");

  SingleFileModel model;
  const std::string prediction = prediction_type(*store, unet, metadata);
  model.inpainting = unet.in_channels == 9;
  model.open_clip = !sdxl && open_clip;
  model.kind = sdxl        ? "Stable Diffusion XL"
               : open_clip ? "Stable Diffusion 2"
                           : "Stable Diffusion 1";
  if (prediction == "v_prediction") model.kind += " (v-prediction)";
  if (model.inpainting) model.kind += " inpainting";
  model.unet = component(store, unet_config_json(unet), unet_origins(*store, kUNet, unet));
  model.vae = component(store, vae_config_json(*store, kVae, sdxl), vae_origins(*store, kVae));
  model.scheduler = scheduler_json(*store, sdxl, prediction);
  if (sdxl) {
    model.text_encoder = component(store, read_clip_text(*store, kXlClip));
    model.text_encoder_2 = component(store, read_open_clip_text(*store, kXlOpenClip, false));
  } else if (open_clip) {
    model.text_encoder = component(store, read_open_clip_text(*store, kOpenClip, true));
  } else {
    model.text_encoder = component(store, read_clip_text(*store, kClip));
  }
  model.ignored = ignored_tensors(*store);
  return model;
}

}  // namespace ringlet::formats
