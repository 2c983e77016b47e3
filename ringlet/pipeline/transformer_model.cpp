#include "ringlet/pipeline/transformer_model.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "ringlet/nn/attention.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/model_folder.h"

namespace ringlet::pipeline {

std::unique_ptr<ControlNetwork> TransformerModel::create_control(ControlKind kind,
                                                                 std::uint64_t seed) const {
  return ControlFeatures::create(kind, first_layer(), options().device, seed,
                                 model_files().path.string());
}

std::unique_ptr<ControlNetwork> TransformerModel::control_from_tensors(
    const std::map<std::string, at::Tensor>& tensors, const std::string& where) const {
  return ControlFeatures::from_tensors(tensors, first_layer(), options().device, where);
}

std::vector<StepBlock> TransformerModel::training_step(const TrainingStepShape& shape) const {
  const PictureSize latents = shape.size.divided_by(vae().config().downscale());
  const PassShape pass{
      .rows = shape.rows,
      .latents = latents,
      .trained = shape.full,
      .precision = options().precision,
      .fused_attention = nn::attention_is_fused(
          head_width(), at::TensorOptions(options().precision).device(options().device))};
  PassBlocks blocks = shape.text ? text_blocks(pass) : PassBlocks();
  std::ranges::copy(transformer_pass(transformer_shape(latents), pass, shape.adapters),
                    std::back_inserter(blocks));
  return in_bytes(std::move(blocks), options().precision);
}

double TransformerModel::denoising_bytes(PictureSize size, std::int64_t rows) const {
  const PictureSize latents = size.divided_by(vae().config().downscale());
  return bytes_of(transformer_inference(transformer_shape(latents), rows), options().precision);
}

void TransformerModel::save(const std::filesystem::path& folder,
                            const SaveModelOptions& options) const {
  nn::with_ringlet_errors(
      folder.string(), [&] { write_model_folder(model_files(), model_index(), folder, options); });
}

void TransformerModel::save_file(const std::filesystem::path& file,
                                 const Replacements& replacements) const {
  nn::with_ringlet_errors(file.string(),
                          [&] { write_single_file(model_files(), file, replacements); });
}

}  // namespace ringlet::pipeline
