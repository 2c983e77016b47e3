// The text encoders of a single-file (LDM) checkpoint.
#pragma once

#include <map>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/formats/renamed_store.h"

namespace ringlet::formats {

/// A text encoder under other names, with the equivalent text_encoder/config.json.
struct LdmTextEncoder {
  Json config;
  std::map<std::string, TensorOrigin> origins;
};

/// transformers' own names under a prefix ("cond_stage_model.transformer."), with the level
/// "text_model." or without: CLIP-L. The origins have it.
LdmTextEncoder read_clip_text(const nn::TensorStore& store, const std::string& prefix);

/// OpenCLIP's names ("cond_stage_model.model.", "conditioner.embedders.1.model."): the three
/// projections of an attention are one matrix and text_projection is transposed. Stable Diffusion 2
/// reads the last layer but one: `drop_last` leaves the last layer and the projection out.
LdmTextEncoder read_open_clip_text(const nn::TensorStore& store, const std::string& prefix,
                                   bool drop_last);

}  // namespace ringlet::formats
