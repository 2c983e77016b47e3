// A difference of the bias, alone or beside every other part.
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void write_bias(LayerWriter& layer) {
  const bool same = layer.magnitude() == nullptr && layer.bias() != nullptr &&
                    layer.bias()->number("scale") == 1.0;
  if (!same) return layer.refuse_method();
  layer.put("diff_b", "bias.d");
}

}  // namespace

void read_bias(LayerReader& layer) {
  if (!layer.has("diff_b")) return;
  layer.give("diff_b", "bias.d");
  layer.add("bias");
}

PartFormat bias_format() {
  return {.part = "bias",
          .shown = "full difference",
          .endings = {{".diff_b", "diff_b", kShared}},
          .held_by = {AdapterFormat::kohya, AdapterFormat::lycoris, AdapterFormat::comfyui},
          .write = write_bias};
}

}  // namespace ringlet::formats
