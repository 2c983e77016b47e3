// The layers of Stable Diffusion 3 and FLUX as their authors' code has them: one layer there may be
// several here (queries, keys and values), or have its halves in another order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ringlet/formats/row_range.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// A layer of ringlet's (diffusers') network and the rows of an original one that it consists of.
struct LayoutPiece {
  std::string path;
  std::vector<RowRange> rows;  ///< in this order; empty for norms
};

struct OriginalLayer {
  std::string name;                      ///< "double_blocks.0.img_attn.qkv"
  std::vector<LayoutPiece> pieces = {};  ///< in the order of their rows
  std::int64_t rows = 0;                 ///< of the original layer
  bool of_xlabs = false;                 ///< XLabs' name, which is read only

  /// Whether it is one layer of the network, as it stands.
  bool is_plain() const { return pieces.size() == 1 && pieces.front().rows.size() < 2; }
};

enum class TransformerFamily { none, stable_diffusion_3, flux };

/// Which transformer of diffusers has these layers.
TransformerFamily transformer_family(const nn::ModuleIndex& network);

/// Which transformer a checkpoint has in its original layout, its names behind `prefix`
/// ("model.diffusion_model.", …).
TransformerFamily transformer_family(const nn::TensorStore& checkpoint, const std::string& prefix);

/// "Stable Diffusion 3", "FLUX", or "".
const char* name_of(TransformerFamily family);

/// All original layers and norms whose parts the network has; none for other networks. XLabs'
/// names of FLUX's attention layers follow. Source: the state dictionaries of sd3-ref (Stability
/// AI), flux and x-flux, and diffusers' scripts that rename them.
std::vector<OriginalLayer> original_layers(const nn::ModuleIndex& network);

/// The same of a checkpoint in the original layout: all layers and norms that it has, and the
/// network's layers that they are. Names are without `prefix`. A fused layer is divided by its
/// inputs: queries, keys and values are as wide as they are many.
std::vector<OriginalLayer> original_layers(const nn::TensorStore& checkpoint,
                                           const std::string& prefix);

}  // namespace ringlet::formats
