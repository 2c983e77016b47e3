#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_vera(LayerReader& layer) {
  layer.check_type("VERA");
  layer.give("vera_b", "residual.b");
  const at::Tensor& d = layer.give("vera_d", "residual.d");
  layer.check_rank("vera_d", d.numel());
  layer.add("vera", {{"rank", d.numel()},
                     {"seed", layer.context().config->integer("projection_prng_key", 0)}});
}

void write_vera(LayerWriter& layer) {
  if (layer.magnitude() != nullptr || layer.bias() != nullptr || layer.shape().convolution)
    return layer.refuse_method();
  layer.put("vera_b", "residual.b");
  layer.put("vera_d", "residual.d");
  layer.config("r") = layer.residual()->integer("rank");
  layer.config("projection_prng_key") = layer.residual()->integer("seed");
  layer.config("save_projection") = false;
}

}  // namespace

PartFormat vera_format() {
  return {
      .part = "vera",
      .shown = "VeRA",
      .endings = {{".vera_lambda_b", "vera_b", kPeftNames},
                  {".vera_lambda_d", "vera_d", kPeftNames}},
      .peft = {.types = {"VERA"},
               .fields = {"vera_dropout", "save_projection", "d_initial", "projection_prng_key"}},
      .held_by = {AdapterFormat::peft},
      .recognises = [](const LayerTensors& layer) { return layer.has("vera_b"); },
      .read = read_vera,
      .write = write_vera};
}

}  // namespace ringlet::formats
