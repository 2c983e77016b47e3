// GLoRA: a low rank on both sides of the frozen weight.
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_glora(LayerReader& layer) {
  const at::Tensor& a1 = layer.give("a1", "transform.a1");
  const std::int64_t rank = layer.rank_of("a1", a1, 1);
  layer.give("a2", "transform.a2");
  const at::Tensor& b1 = layer.give("b1", "residual.up");
  layer.give("b2", "residual.down");
  if (layer.rank_of("b1", b1, 1) != rank) throw layer.bad("b1", "has another rank than a1");
  const double alpha = layer.alpha(rank);
  layer.add("lowrank", {{"rank", rank}, {"alpha", alpha}});
  layer.add("lora", {{"rank", rank}, {"alpha", alpha}, {"init", "glora"}});
}

void write_glora(LayerWriter& layer) {
  const adapt::PartSpec& first = *layer.transforms().front();
  const adapt::PartSpec* const second = layer.residual();
  const bool same = layer.transforms().size() == 1 && second != nullptr && second->name == "lora" &&
                    layer.magnitude() == nullptr && layer.bias() == nullptr &&
                    first.number("rank") == second->number("rank") &&
                    first.number("alpha") == second->number("alpha") &&
                    second->word("scaling") == "rank" && !layer.has("residual.mid") &&
                    !layer.has("residual.down_start");
  if (!same) return layer.refuse_method();
  write_low_rank(layer, "b2", "b1");
  for (const char* name : {"a1", "a2"}) {
    const at::Tensor& a = layer.numbers(std::string("transform.") + name);
    layer.put(name, layer.shape().convolution ? a.unsqueeze(-1).unsqueeze(-1) : a);
  }
}

/// W0 a1 a2 changes every row by itself, so that the rows of a fused layer share a1 and a2.
void take_glora_rows(RowTaker& layer) {
  layer.take("b1");
  for (const char* name : {"a1", "a2", "b2"}) layer.keep(name);
}

void join_glora_rows(RowJoiner& layer) {
  const bool same = layer.equal("a1") && layer.equal("a2") && layer.equal("b2") &&
                    layer.equal_scale() && layer.is_complete();
  if (!same)
    return layer.refuse(
        "has GLoRA of a layer that is several here only where these share its other factors");
  layer.put("b1", layer.stacked("b1"));
  for (const char* name : {"a1", "a2", "b2"}) layer.put(name, layer.first(name));
  const LayerWriting& one = *layer.adapted().front().first;
  layer.put_scale(one.alpha, one.rank);
}

}  // namespace

PartFormat glora_format() {
  return {.part = "lowrank",
          .shown = "GLoRA",
          .algorithm = "glora",
          .endings = {{".a1.weight", "a1", kShared},
                      {".a2.weight", "a2", kShared, Telling::little},
                      {".b1.weight", "b1", kShared, Telling::little},
                      {".b2.weight", "b2", kShared, Telling::little},
                      {".bm.weight", "bm", kShared, Telling::little}},
          .held_by = {AdapterFormat::lycoris, AdapterFormat::comfyui},
          .recognises = [](const LayerTensors& layer) { return layer.has("a1"); },
          .read = read_glora,
          .write = write_glora,
          .take_rows = take_glora_rows,
          .join_rows = join_glora_rows};
}

}  // namespace ringlet::formats
