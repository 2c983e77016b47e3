// Whole differences of a weight, and weights that take its place.
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_difference(LayerReader& layer) {
  const char* what = layer.has("diff") ? "diff" : "set_weight";
  const at::Tensor& stored = layer.file().tensors.at(what);
  const at::Tensor& w0 = layer.context().layer->weight();
  if (stored.numel() != w0.numel())
    throw layer.bad(what, "has another size than the layer's weight");
  if (layer.has("diff")) {
    layer.give("diff", "residual.diff");
  } else {
    layer.decide("set_weight is the whole weight: its difference from the model's is taken");
    layer.give("residual.diff", layer.take("set_weight").to(at::kFloat).reshape(w0.sizes()) -
                                    w0.to(at::kCPU, at::kFloat));
  }
  layer.add("diff");
  read_magnitude(layer);
}

void write_difference(LayerWriter& layer) {
  layer.put("diff", "residual.diff");
  if (layer.bias() != nullptr) {
    if (layer.bias()->number("scale") != 1.0) return layer.refuse_method();
    layer.put("diff_b", "bias.d");
  }
  write_magnitude(layer);
}

}  // namespace

PartFormat difference_format() {
  return {
      .part = "diff",
      .shown = "full difference",
      .algorithm = "full",
      .endings = {{".diff", "diff", kShared},
                  {".set_weight", "set_weight", kShared},
                  {".scale", "set_weight", kOriginal, Telling::little}},
      .held_by = {AdapterFormat::kohya, AdapterFormat::lycoris, AdapterFormat::comfyui},
      .recognises =
          [](const LayerTensors& layer) { return layer.has("diff") || layer.has("set_weight"); },
      .read = read_difference,
      .write = write_difference,
      .take_rows = [](RowTaker& layer) { layer.take(layer.has("diff") ? "diff" : "set_weight"); },
      .join_rows = [](RowJoiner& layer) { layer.put("diff", layer.stacked("diff")); }};
}

}  // namespace ringlet::formats
