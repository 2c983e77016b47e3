// A layer that PEFT trained and saved whole, as it does with a new head (modules_to_save): the
// difference from the model's own.
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

at::Tensor difference(LayerReader& layer, const char* what, const at::Tensor& own) {
  const at::Tensor& saved = layer.take(what);
  if (!own.defined() || saved.sizes() != own.sizes())
    throw layer.bad(what, "has another shape than the model's");
  return saved.to(at::kFloat) - own.to(at::kFloat);
}

void read_saved(LayerReader& layer) {
  const bool whole = layer.has("saved_weight");
  const PeftConfig* const config = layer.context().config;
  if (config == nullptr || !config->is_set("modules_to_save"))
    throw layer.bad(whole ? "saved_weight" : "saved_bias",
                    "is a whole layer's, but the configuration names no modules_to_save");
  const nn::Layer& own = *layer.context().layer;
  if (whole) {
    // Turned back where the checkpoint stores the weight as [in, out].
    layer.give("residual.diff",
               own.stored(difference(layer, "saved_weight", own.stored(own.weight()))));
    layer.add("diff");
  }
  if (layer.has("saved_bias")) {
    layer.give("bias.d", difference(layer, "saved_bias", own.bias()));
    layer.add("bias");
  }
  layer.decide("modules_to_save: whole layers, read as their difference from the model's");
}

}  // namespace

PartFormat saved_format() {
  return {.endings = {{".weight", "saved_weight", kPeftNames, Telling::little},
                      {".bias", "saved_bias", kPeftNames, Telling::little}},
          .peft = {.fields = {"modules_to_save"}},
          .recognises =
              [](const LayerTensors& layer) {
                return layer.has("saved_weight") || layer.has("saved_bias");
              },
          .read = read_saved};
}

}  // namespace ringlet::formats
