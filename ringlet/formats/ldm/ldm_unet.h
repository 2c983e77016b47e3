// The U-Net of a single-file (LDM) checkpoint: its shape and its names.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// One entry of LDM's flat list of blocks: a residual block or a change of resolution.
struct LdmBlock {
  std::int64_t level;
  std::int64_t index;  ///< residual block within the level
  bool resampler;      ///< the block is a downsampler
};

/// What can be told from the tensors of `model.diffusion_model.*`.
struct LdmUNet {
  std::vector<LdmBlock> input_blocks;  ///< input_blocks.1, .2, …
  std::vector<std::int64_t> channels;  ///< per level
  std::vector<std::int64_t> depth;     ///< transformer layers per level, 0 = no attention
  std::int64_t layers_per_block = 0;
  std::int64_t middle_depth = 0;
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t context_width = 0;
  std::int64_t label_width = 0;  ///< input of label_emb (SDXL), 0 = none
  bool linear_projection = false;
};

/// Reads the structure. `prefix` ends with a dot. Throws Error(bad_format | unsupported) when the
/// tensors do not form a U-Net of Stable Diffusion.
LdmUNet read_ldm_unet(const nn::TensorStore& store, const std::string& prefix);

/// The equivalent unet/config.json.
Json unet_config_json(const LdmUNet& unet);

/// Adds diffusers names of all tensors under `prefix`; unknown tensors keep their LDM name, so that
/// loading reports them as unused.
std::map<std::string, TensorOrigin> unet_origins(const nn::TensorStore& store,
                                                 const std::string& prefix, const LdmUNet& unet);

/// LDM's names of a U-Net's modules (layers and norms) by diffusers' names:
/// "down_blocks.0.downsamplers.0.conv" is "input_blocks.3.0.op". Those for which LDM has no name
/// are left out.
std::map<std::string, std::string> ldm_module_names(const nn::ModuleIndex& unet,
                                                    const std::vector<std::string>& modules);

}  // namespace ringlet::formats
