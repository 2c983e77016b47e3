#include <ATen/ops/scalar_tensor.h>

#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_ia3(LayerReader& layer) {
  const at::Tensor& scale = layer.give("ia3", "transform.scale");
  const PeftConfig* const config = layer.context().config;
  bool input = false, bias = false;
  if (layer.of_peft()) {
    layer.check_type("IA3");
    input = config != nullptr && config->selects("feedforward_modules", layer.context().path);
    bias = !input && layer.context().layer->bias().defined();
    if (bias) layer.decide("IA3 on the output scales the bias, too (PEFT)");
  } else {
    input = layer.scalar("on_input") != 0.0;
  }
  layer.decide(input ? "IA3 on the input" : "IA3 on the output");
  if (scale.numel() != (input ? layer.shape().in : layer.shape().out))
    throw layer.bad("ia3", "does not have one number per channel");
  layer.add("diagonal", {{"side", input ? "input" : "output"},
                         {"form", layer.of_peft() ? "factor" : "offset"},
                         {"bias", bias ? "yes" : "no"}});
}

void write_ia3(LayerWriter& layer) {
  const bool alone = layer.transforms().size() == 1 && layer.residual() == nullptr &&
                     layer.magnitude() == nullptr && layer.bias() == nullptr;
  if (!alone) return layer.refuse_method();
  const adapt::PartSpec& part = *layer.transforms().front();
  const at::Tensor& scale = layer.numbers("transform.scale");
  const bool output = part.word("side") == "output", offset = part.word("form") == "offset";
  const bool has_bias = layer.layer().bias().defined();
  const bool of_bias = output && part.yes("bias") && has_bias;
  const bool convolution = layer.shape().convolution;
  if (layer.lycoris()) {
    if (of_bias) return layer.refuse("scales no bias, this IA3 does");
    const at::Tensor w = offset ? scale : scale - 1.0;
    layer.put("ia3", convolution ? w.view({1, -1, 1, 1}) : w);
    layer.put("on_input", at::scalar_tensor(output ? 0 : 1, at::kLong));
    return;
  }
  if (output && !of_bias && has_bias) return layer.refuse("scales the bias, this IA3 does not");
  const at::Tensor l = offset ? scale + 1.0 : scale;
  if (convolution)
    layer.put("ia3", l.view({1, -1, 1, 1}));
  else
    layer.put("ia3", output ? l.view({-1, 1}) : l.view({1, -1}));
  if (!output) layer.mark_of_input();
}

/// A scale of outputs is one of rows; one of inputs is the same for all rows.
void take_ia3_rows(RowTaker& layer) {
  layer.keep("on_input");
  if (layer.use("on_input").to(at::kDouble).any().item<bool>())
    layer.keep("ia3");
  else
    layer.take("ia3");
}

void join_ia3_rows(RowJoiner& layer) {
  const bool input = layer.first("on_input").item<std::int64_t>() != 0;
  const bool shared = layer.equal("ia3") && layer.is_complete();
  if (!layer.equal("on_input") || (input && !shared))
    return layer.refuse("has IA3 of a layer that is several here only where these share it");
  layer.put("ia3", input ? layer.first("ia3") : layer.stacked("ia3"));
  layer.put("on_input", layer.first("on_input"));
}

}  // namespace

PartFormat ia3_format() {
  return {.part = "diagonal",
          .shown = "IA3",
          .algorithm = "ia3",
          .endings = {{".ia3_l", "ia3", kPeftNames},
                      {".weight", "ia3", kUnderscored, Telling::little},
                      {".on_input", "on_input", kUnderscored, Telling::setting}},
          .peft = {.types = {"IA3"},
                   .fields = {"init_ia3_weights", "feedforward_modules"},
                   .input_layers_field = "feedforward_modules"},
          .held_by = {AdapterFormat::lycoris, AdapterFormat::peft},
          .recognises = [](const LayerTensors& layer) { return layer.has("ia3"); },
          .read = read_ia3,
          .write = write_ia3,
          .take_rows = take_ia3_rows,
          .join_rows = join_ia3_rows};
}

}  // namespace ringlet::formats
