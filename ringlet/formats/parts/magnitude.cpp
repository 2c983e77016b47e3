// DoRA: the lengths of rows or columns beside another part.
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {

void read_magnitude(LayerReader& layer) {
  if (!layer.configured("use_dora") && !layer.has("magnitude")) return;
  const adapt::LayerShape& shape = layer.shape();
  const at::Tensor& m = layer.give("magnitude", "magnitude.m");
  const bool peft = !layer.name("magnitude").ends_with(".dora_scale");
  // [1, in] is the axis of LyCORIS before 3.2; PEFT's convolutions are [1, out, 1, 1].
  const bool columns = !peft && m.dim() > 1 && m.size(0) == 1 && m.numel() == shape.in &&
                       (shape.in != 1 || shape.out != 1);
  if (m.numel() != (columns ? shape.in : shape.out))
    throw layer.bad("magnitude", "has " + std::to_string(m.numel()) + " numbers, the layer " +
                                     std::to_string(shape.out) + " outputs and " +
                                     std::to_string(shape.in) + " inputs");
  layer.decide(columns ? "DoRA's lengths are those of input columns (from the shape [1, in])"
                       : "DoRA's lengths are those of output rows");
  layer.add("magnitude",
            {{"axis", columns ? "input" : "output"}, {"norm", peft ? "detached" : "exact"}});
}

void write_magnitude(LayerWriter& layer) {
  if (layer.magnitude() == nullptr) return;
  const adapt::LayerShape& shape = layer.shape();
  const at::Tensor& m = layer.numbers("magnitude.m");
  const bool columns = layer.magnitude()->word("axis") == "input";
  if (columns && !layer.lycoris())
    return layer.refuse("has DoRA's lengths for output rows only, these are of input columns");
  if (layer.lycoris()) {
    std::vector<std::int64_t> sizes(shape.convolution ? 4 : 2, 1);
    sizes[columns ? 1 : 0] = m.numel();
    layer.put("magnitude", m.view(sizes));
  } else {
    layer.put("magnitude", shape.convolution ? m.view({1, -1, 1, 1}) : m);
  }
}

PartFormat magnitude_format() {
  constexpr Spellings kBoth = kPeftNames | kDotted;
  return {.shown = "DoRA",
          .endings = {{".lora_magnitude_vector", "magnitude", kBoth},
                      {".lora_magnitude_vector.weight", "magnitude", kBoth},
                      {".dora_scale", "magnitude", kShared}},
          .peft = {.fields = {"use_dora"}}};
}

}  // namespace ringlet::formats
