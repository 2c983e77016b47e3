// The level "text_model." in the names of CLIP's text encoders. Files of transformers before 5.6,
// and of all versions for encoders with a projection, have it; CLIPTextModel saved since lacks it.
// ringlet's own names have it, and both are read.
#pragma once

#include <string>

namespace ringlet::nn {

/// "encoder.layers.0.mlp.fc1" -> "text_model.encoder.layers.0.mlp.fc1". Names with the level, and
/// those that never have it (text_projection), stay as they are. Works on tensors' and layers'
/// paths inside their component.
std::string with_text_model_level(const std::string& path);

/// The reverse.
std::string without_text_model_level(const std::string& path);

/// The other spelling of "component.path": with the level where it lacks one, and without it where
/// it has one. "" for what is spelled in one way only.
std::string other_text_spelling(const std::string& full_name);

}  // namespace ringlet::nn
