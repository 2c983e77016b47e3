// The transformers of Stable Diffusion 3 and FLUX in checkpoints of their authors' layout.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ringlet/formats/checkpoint_part.h"
#include "ringlet/formats/original_layout.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

struct OriginalTransformer {
  TransformerFamily family;
  std::string prefix;  ///< of its tensors' names: "model.diffusion_model.", "diffusion_model.", ""
};

/// The transformer of a checkpoint, in the original layout; nothing where there is none.
std::optional<OriginalTransformer> find_original_transformer(const nn::TensorStore& checkpoint);

/// It as diffusers' network: fused layers are divided into views of the file where their rows
/// allow it, and the configuration is what the shapes say. Heads are as wide as the norms of
/// queries and keys, else 64 as in Stable Diffusion 3. Tensors that no table knows keep their name,
/// so that loading reports them. Throws Error(bad_format) for an incomplete one, and
/// Error(unsupported) for a network of other layers (Chroma, FLUX.2, …).
SingleFileComponent open_original_transformer(
    const std::shared_ptr<const nn::TensorStore>& checkpoint, const OriginalTransformer& found);

/// Whether a tensor is of another part of a checkpoint: text encoders, autoencoder.
bool is_other_part(const std::string& tensor);

}  // namespace ringlet::formats
