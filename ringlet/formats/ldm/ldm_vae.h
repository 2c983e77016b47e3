// The autoencoder of a single-file (LDM) checkpoint.
#pragma once

#include <map>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/formats/renamed_store.h"

namespace ringlet::formats {

/// The equivalent vae/config.json, read from the tensors under `prefix` ("first_stage_model.").
Json vae_config_json(const nn::TensorStore& store, const std::string& prefix, bool sdxl);

/// diffusers names of all tensors under `prefix`; unknown tensors keep their LDM name.
std::map<std::string, TensorOrigin> vae_origins(const nn::TensorStore& store,
                                                const std::string& prefix);

}  // namespace ringlet::formats
