// Recognises adapter files by their tensor names.
#pragma once

#include <string>

#include "ringlet/io/safetensors.h"

namespace ringlet::formats {

/// "LoRA adapter (kohya)", "LoKr adapter (LyCORIS)", "textual inversion", … or "tensors" when the
/// names are not known.
std::string file_kind(const io::SafetensorsFile& file);

/// The model part that a tensor of an adapter file changes: "unet", "transformer",
/// "text_encoder", "text_encoder_2", "T5", …, or "tensors" when the name does not say.
std::string adapter_component(const std::string& name);

}  // namespace ringlet::formats
