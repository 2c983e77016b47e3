// What a single-file checkpoint says of itself: what its network predicts, and whether its noise
// schedule ends in pure noise.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/diffusion/prediction.h"
#include "ringlet/formats/ldm/ldm_unet.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// A word for what is predicted, and who says so: {"the tensor v_pred", "v_prediction"}.
struct PredictionStatement {
  std::string source;
  std::string word;
};

/// What is known of a checkpoint besides its tensors and its metadata.
struct PredictionHints {
  std::optional<diffusion::Prediction> chosen;       ///< by the user: wins over the file
  std::optional<PredictionStatement> configuration;  ///< see configuration_beside
};

struct CheckpointPrediction {
  std::string type;     ///< as in scheduler_config.json; a word that is not known stays as it is
  std::string source;   ///< for people: what said so, or why it is assumed
  bool stated = false;  ///< false: nothing says it, it is guessed
  bool zero_terminal_snr = false;  ///< never for epsilon, which cannot be sampled from there
  std::string snr_source;          ///< what said so; "" when nothing did
  std::vector<std::string> notes;  ///< contradictions and words that are not known
};

/// What an LDM checkpoint's network predicts. In this order: the user's choice; the tensor "v_pred"
/// (as ComfyUI and SD web UIs have it); the configuration beside the file; the metadata of
/// ModelSpec, ComfyUI and kohya. Stable Diffusion 2 that says nothing is told by its weights;
/// others are taken for epsilon. What says otherwise is in `notes`.
CheckpointPrediction checkpoint_prediction(const nn::TensorStore& store, const LdmUNet& unet,
                                           const io::Metadata& metadata,
                                           const PredictionHints& hints);

/// True for tensors that describe a checkpoint and are not weights: "v_pred", "ztsnr".
bool is_prediction_marker(const std::string& tensor);

/// "parameterization", or the scaling of the denoiser (SDXL), in the .yaml file of the same name
/// beside a checkpoint, by which SD web UIs tell v models; none without such a file or line.
std::optional<PredictionStatement> configuration_beside(const std::filesystem::path& checkpoint);

}  // namespace ringlet::formats
