#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_fourierft(LayerReader& layer) {
  layer.check_type("FOURIERFT");
  const PeftConfig& config = *layer.context().config;
  const at::Tensor& spectrum = layer.give("spectrum", "residual.spectrum");
  layer.add("fourierft", {{"n", spectrum.numel()},
                          {"scale", config.number("scaling", 150.0)},
                          {"seed", config.integer("random_loc_seed", 777)}});
}

void write_fourierft(LayerWriter& layer) {
  if (layer.magnitude() != nullptr || layer.bias() != nullptr || layer.shape().convolution)
    return layer.refuse_method();
  layer.put("spectrum", "residual.spectrum");
  layer.config("n_frequency") = layer.numbers("residual.spectrum").numel();
  layer.config("scaling") = layer.residual()->number("scale");
  layer.config("random_loc_seed") = layer.residual()->integer("seed");
}

}  // namespace

PartFormat fourierft_format() {
  return {.part = "fourierft",
          .shown = "FourierFT",
          .endings = {{".fourierft_spectrum", "spectrum", kPeftNames}},
          .peft = {.types = {"FOURIERFT"},
                   .fields = {"n_frequency", "n_frequency_pattern", "scaling", "random_loc_seed"}},
          .held_by = {AdapterFormat::peft},
          .recognises = [](const LayerTensors& layer) { return layer.has("spectrum"); },
          .read = read_fourierft,
          .write = write_fourierft};
}

}  // namespace ringlet::formats
