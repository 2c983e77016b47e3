#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_hra(LayerReader& layer) {
  layer.check_type("HRA");
  const at::Tensor& u = layer.give("hra_u", "transform.u");
  if (u.dim() != 2 || u.size(0) != layer.shape().patch())
    throw layer.bad("hra_u", "does not have one row per input");
  if ((u.to(at::kFloat).norm(2, 0) == 0).any().item<bool>())
    throw layer.damaged("hra_u", "has a vector of length zero, which reflects nothing");
  layer.check_rank("hra_u", u.size(1));
  const bool orthogonal = layer.configured("apply_GS");
  if (orthogonal && u.size(1) > u.size(0))
    throw layer.bad("hra_u", "has more vectors than can be orthogonal to each other");
  adapt::Options options = layer.over_patches(u.size(0));
  options["rank"] = u.size(1);
  options["orthogonal"] = orthogonal ? "yes" : "no";
  layer.add("hra", std::move(options));
}

void write_hra(LayerWriter& layer) {
  if (!is_rotation(layer)) return;
  const adapt::PartSpec& part = *layer.transforms().front();
  if (layer.transforms().size() > 1 || !layer.of_patches(part)) return layer.refuse_method();
  layer.put("hra_u", "transform.u");
  layer.config("r") = part.integer("rank");
  if (part.yes("orthogonal")) layer.config("apply_GS") = true;
}

}  // namespace

PartFormat hra_format() {
  return {.part = "hra",
          .shown = "HRA",
          .endings = {{".hra_u", "hra_u", kPeftNames}},
          .peft = {.types = {"HRA"}, .fields = {"apply_GS"}, .of_conv1d = false},
          .held_by = {AdapterFormat::peft},
          .recognises = [](const LayerTensors& layer) { return layer.has("hra_u"); },
          .read = read_hra,
          .write = write_hra};
}

}  // namespace ringlet::formats
