// What the orthogonal transforms share: OFT, BOFT and HRA.
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

/// Whether a second transform is no more than a scale of output rows.
bool scales_rows(const adapt::PartSpec& part) {
  return part.name == "diagonal" && part.word("side") == "output" &&
         part.word("form") == "factor" && !part.yes("bias");
}

}  // namespace

bool is_rotation(LayerWriter& layer) {
  const auto& transforms = layer.transforms();
  const bool rows = transforms.size() == 2 && scales_rows(*transforms.back());
  const bool alone = transforms.size() == (rows ? 2U : 1U) && layer.residual() == nullptr &&
                     layer.magnitude() == nullptr && layer.bias() == nullptr;
  if (!alone) layer.refuse_method();
  return alone;
}

double read_constraint(LayerReader& layer) {
  const double constraint = layer.has("alpha") ? layer.scalar("alpha") : 0.0;
  if (!(constraint >= 0.0)) throw layer.damaged("alpha", "is a constraint below zero");
  if (constraint > 0.0) layer.checked_scale(constraint, layer.name("alpha"));
  // LyCORIS and kohya count it per output, ComfyUI, which trains such files too, in all.
  const bool comfyui = layer.context().naming == Naming::comfyui;
  const double own = comfyui ? constraint / static_cast<double>(layer.shape().out) : constraint;
  if (layer.context().kohya_oft && own == 0.0)
    throw Error(ErrorCode::unsupported, layer.name("oft_blocks"),
                "kohya's networks.oft with alpha 0 limits the rotation to zero",
                "set alpha in the file, or train it again with LyCORIS' diag-oft");
  if (own > 0.0) layer.decide("OFT: alpha is the constraint on the rotation's size");
  return own;
}

void write_constraint(LayerWriter& layer, double constraint) {
  if (layer.comfyui()) constraint *= static_cast<double>(layer.shape().out);
  // Without one LyCORIS writes the integer 0.
  layer.put("alpha", constraint == 0.0 ? at::zeros({}, at::kLong)
                                       : at::scalar_tensor(constraint, at::kFloat));
}

void read_row_scale(LayerReader& layer, const char* what) {
  if (!layer.has(what)) return;
  const at::Tensor& scale = layer.give(what, "transform_2.scale");
  if (scale.numel() != layer.shape().out)
    throw layer.bad(what, "does not have one number per output");
  layer.add("diagonal", {{"side", "output"}});
}

void write_row_scale(LayerWriter& layer, const char* what, bool always) {
  const adapt::LayerShape& shape = layer.shape();
  std::vector<std::int64_t> sizes = {shape.out, 1};
  // PEFT's BOFT has the outputs of a convolution on the second axis, LyCORIS on the first.
  if (shape.convolution)
    sizes = layer.peft() ? std::vector<std::int64_t>{1, shape.out}
                         : std::vector<std::int64_t>{shape.out, 1, 1, 1};
  if (layer.transforms().size() > 1)
    layer.put(what, layer.numbers("transform_2.scale").view(sizes));
  else if (always)
    layer.put(what, at::ones(sizes));
}

}  // namespace ringlet::formats
