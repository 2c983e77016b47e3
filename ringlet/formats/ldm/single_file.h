// Single-file checkpoints in the layout of the original latent-diffusion code (LDM), as shared for
// Stable Diffusion 1, 2 and XL.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/formats/checkpoint_part.h"
#include "ringlet/formats/checkpoint_prediction.h"
#include "ringlet/formats/ldm/ldm_vae.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

struct SingleFileModel {
  std::string kind;  ///< "Stable Diffusion 1", "Stable Diffusion 2 (v-prediction)", …
  bool inpainting = false;
  bool open_clip = false;  ///< the (first) text encoder is OpenCLIP's
  bool xl = false;
  SingleFileComponent unet;
  SingleFileComponent vae, text_encoder;  ///< weights are null where they come from elsewhere
  SingleFileComponent text_encoder_2;     ///< SDXL only; weights is null otherwise
  LatentScale latents;                    ///< of the family's autoencoders
  CheckpointPrediction prediction;
  Json scheduler;                    ///< as in scheduler_config.json
  std::vector<std::string> ignored;  ///< tensors outside the components (EMA copies, …)
  bool sdxl() const { return xl; }
};

/// Parts that come from files of their own, and may be missing in a checkpoint.
struct PartsElsewhere {
  bool text_encoders = false;
  bool vae = false;
};

/// True when the tensors look like a single-file checkpoint with a U-Net.
bool is_single_file_model(const nn::TensorStore& store);

/// Detects the model and maps its names. `metadata` and `hints` may say what it predicts: see
/// checkpoint_prediction. Throws Error(unsupported) for a checkpoint of another family, with its
/// name where it is known, and Error(bad_format) for an incomplete one.
SingleFileModel open_single_file(const std::shared_ptr<const nn::TensorStore>& store,
                                 const io::Metadata& metadata = {},
                                 const PredictionHints& hints = {},
                                 const PartsElsewhere& elsewhere = {});

}  // namespace ringlet::formats
