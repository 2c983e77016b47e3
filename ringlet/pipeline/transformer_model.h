// What models with a diffusion transformer have in common, beside what all of latents have.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/pipeline/control_features.h"
#include "ringlet/pipeline/latent_model.h"
#include "ringlet/pipeline/model_files.h"
#include "ringlet/pipeline/transformer_memory.h"

namespace ringlet::pipeline {

/// A LatentModel whose denoiser is the network "transformer": control at the patch embedding,
/// memory by blocks, and files. A family says its shapes.
class TransformerModel : public LatentModel {
 public:
  const ModelDescription& description() const override { return model_files(); }

  bool inpaints_latents() const override { return true; }
  std::unique_ptr<ControlNetwork> create_control(ControlKind kind,
                                                 std::uint64_t seed) const override;
  std::unique_ptr<ControlNetwork> control_from_tensors(
      const std::map<std::string, at::Tensor>& tensors, const std::string& where) const override;

  std::vector<StepBlock> training_step(const TrainingStepShape& shape) const override;
  double denoising_bytes(PictureSize size, std::int64_t rows) const override;

  void save(const std::filesystem::path& folder, const SaveModelOptions& options) const override;
  void save_file(const std::filesystem::path& file,
                 const Replacements& replacements) const override;
  std::map<std::string, std::string> class_names() const override {
    return text_class_names(model_files());
  }

 protected:
  using LatentModel::LatentModel;

  virtual const ModelFiles& model_files() const = 0;
  virtual Json model_index() const = 0;  ///< of a folder in diffusers' layout
  virtual FirstLayer first_layer() const = 0;
  virtual std::int64_t head_width() const = 0;
  /// For latents of this size, with the text that the model reads.
  virtual TransformerShape transformer_shape(PictureSize latents) const = 0;
  /// A training pass of the text encoders. `shape` does not say how long CLIP's text is.
  virtual PassBlocks text_blocks(PassShape shape) const = 0;
};

}  // namespace ringlet::pipeline
