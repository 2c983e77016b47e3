#include "ringlet/formats/ldm/single_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/ldm/ldm_text.h"
#include "ringlet/formats/ldm/ldm_unet.h"
#include "ringlet/formats/ldm/ldm_vae.h"
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
  constexpr const char* kNoCheckpoint = ", not a Stable Diffusion or FLUX.1 checkpoint";
  constexpr const char* kGiveTheModel =
      "give the model itself; ringlet inspect FILE shows what a file contains";
  static constexpr std::array<std::pair<const char*, const char*>, 3> kFamilies = {{
      {"control_model.", "a ControlNet"},
      {"lora_unet_", "a LoRA adapter"},
      {"lora_te", "a LoRA adapter"},
  }};
  for (const std::string& name : store.names())
    if (name.find(".lora_") != std::string::npos)
      throw Error(ErrorCode::unsupported, store.description(),
                  std::string("this file is a LoRA adapter") + kNoCheckpoint, kGiveTheModel);
  // Complete ones have readers of their own.
  static constexpr std::array<std::pair<const char*, const char*>, 2> kTransformers = {
      {{"joint_blocks.", "Stable Diffusion 3"}, {"double_blocks.", "FLUX"}}};
  for (const auto& [blocks, family] : kTransformers)
    if (has_prefix(store, blocks) || has_prefix(store, kUNet + blocks))
      throw Error(ErrorCode::unsupported, store.description(),
                  std::string("this file has layers of ") + family +
                      ", but not the attention of its first block",
                  "it is incomplete, or of a relative that ringlet does not support; download it "
                  "again");
  for (const auto& [prefix, family] : kFamilies)
    if (has_prefix(store, prefix))
      throw Error(ErrorCode::unsupported, store.description(),
                  std::string("this file is ") + family + kNoCheckpoint, kGiveTheModel);
  // Stable Diffusion XL in shape, but trained on the continuous noise levels of Karras et al. 2022.
  static constexpr std::array<std::pair<const char*, const char*>, 4> kEdm = {{
      {"edm_vpred.sigma_max", "CosXL (v-prediction in EDM's form)"},
      {"edm_vpred.sigma_min", "CosXL (v-prediction in EDM's form)"},
      {"edm_mean", "Playground v2.5 (EDM)"},
      {"edm_std", "Playground v2.5 (EDM)"},
  }};
  for (const auto& [marker, family] : kEdm)
    if (has_prefix(store, marker))
      throw Error(ErrorCode::unsupported, store.description(),
                  std::string("the tensor \"") + marker + "\" says that this is " + family +
                      ", whose noise levels are not those of Stable Diffusion XL",
                  "ringlet samples and trains models that predict epsilon or v on Stable "
                  "Diffusion's schedule; use such a checkpoint");
  if (has_prefix(store, kRefinerText))
    throw Error(ErrorCode::unsupported, store.description(),
                "this is the SDXL refiner, which cannot make pictures from text alone",
                "use the SDXL base model");
}

/// Under zero terminal SNR the sampler is one that diffusers has for it, and the first step the
/// last level of training.
Json scheduler_json(bool sdxl, const CheckpointPrediction& prediction) {
  const bool zero = prediction.zero_terminal_snr;
  const char* const sampler = sdxl   ? "EulerDiscreteScheduler"
                              : zero ? "DDIMScheduler"
                                     : "PNDMScheduler";
  return {{"_class_name", sampler},
          {"beta_start", 0.00085},
          {"beta_end", 0.012},
          {"beta_schedule", "scaled_linear"},
          {"num_train_timesteps", 1000},
          {"prediction_type", prediction.type},
          {"rescale_betas_zero_snr", zero},
          {"set_alpha_to_one", false},
          {"skip_prk_steps", true},
          {"steps_offset", 1},
          {"timestep_spacing", zero ? "trailing" : "leading"}};
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
    if (!used && !is_prediction_marker(name)) ignored.push_back(name);
  }
  return ignored;
}

}  // namespace

bool is_single_file_model(const nn::TensorStore& store) { return has_prefix(store, kUNet); }

SingleFileModel open_single_file(const std::shared_ptr<const nn::TensorStore>& store,
                                 const io::Metadata& metadata, const PredictionHints& hints,
                                 const PartsElsewhere& elsewhere) {
  refuse_other_families(*store);
  if (!is_single_file_model(*store))
    throw Error(
        ErrorCode::unsupported, store->description(),
        "this is not a single-file Stable Diffusion checkpoint, nor one of FLUX.1: no tensor "
        "begins with \"" +
            kUNet + "\", \"joint_blocks.\" or \"double_blocks.\"",
        "give a checkpoint file, or a model folder with model_index.json");
  const LdmUNet unet = read_ldm_unet(*store, kUNet);
  bool sdxl = has_prefix(*store, kXlOpenClip);
  bool open_clip = has_prefix(*store, kOpenClip);
  const bool clip = sdxl || open_clip || has_prefix(*store, kClip);
  if (!clip && !elsewhere.text_encoders)
    throw Error(ErrorCode::unsupported, store->description(),
                "the file holds a U-Net without its text encoder",
                "use the full checkpoint or a model folder, or give `text_encoder=FILE`");
  const bool vae = has_prefix(*store, kVae);
  if (!vae && !elsewhere.vae)
    throw Error(ErrorCode::unsupported, store->description(),
                "the file holds no autoencoder (first_stage_model)",
                "use a checkpoint with a baked-in VAE, or give `vae=FILE`");

  constexpr std::int64_t kWidthOf2 = 1024, kWidthOfXl = 2048;
  sdxl = sdxl || (!clip && unet.context_width == kWidthOfXl);
  open_clip = open_clip || (!clip && unet.context_width == kWidthOf2);
  SingleFileModel model;
  model.xl = sdxl;
  model.prediction = checkpoint_prediction(*store, unet, metadata, hints);
  model.inpainting = unet.in_channels == 9;
  model.open_clip = !sdxl && open_clip;
  model.kind = sdxl        ? "Stable Diffusion XL"
               : open_clip ? "Stable Diffusion 2"
                           : "Stable Diffusion 1";
  if (model.prediction.type == "v_prediction") model.kind += " (v-prediction)";
  if (model.inpainting) model.kind += " inpainting";
  model.unet = component(store, unet_config_json(unet), unet_origins(*store, kUNet, unet));
  model.latents = sdxl ? stable_diffusion_xl_scale() : stable_diffusion_scale();
  if (vae) model.vae = open_autoencoder(store, kVae, model.latents);
  model.scheduler = scheduler_json(sdxl, model.prediction);
  if (!clip) {
    // They come from files of their own.
  } else if (sdxl) {
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
