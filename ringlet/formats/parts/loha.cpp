#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_loha(LayerReader& layer) {
  layer.check_type("LOHA");
  for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b"})
    layer.give((std::string("hada_") + name).c_str(), std::string("residual.") + name);
  const bool tucker = layer.has("hada_t1") || layer.has("hada_t2");
  if (tucker) {
    layer.give("hada_t1", "residual.t1");
    layer.give("hada_t2", "residual.t2");
  }
  const std::int64_t rank = layer.rank_of("hada_w1_b", layer.file().tensors.at("hada_w1_b"), 0);
  layer.check_rank("hada_w1_b", rank);
  layer.add("loha",
            {{"rank", rank}, {"alpha", layer.alpha(rank)}, {"tucker", tucker ? "yes" : "no"}});
  read_magnitude(layer);
}

void write_loha(LayerWriter& layer) {
  if (layer.bias() != nullptr || (layer.magnitude() != nullptr && !layer.lycoris()))
    return layer.refuse_method();
  for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"})
    if (const std::string parameter = std::string("residual.") + name; layer.has(parameter))
      layer.put(std::string("hada_") + name, layer.numbers(parameter));
  if (layer.peft() && layer.has("residual.t1")) layer.config("use_effective_conv2d") = true;
  layer.put_scale(layer.residual()->number("alpha"), layer.residual()->number("rank"));
  write_magnitude(layer);
}

/// Both products have one row per output, so that rows of w1_a and w2_a are those of the change.
void take_loha_rows(RowTaker& layer) {
  if (layer.has("hada_t1") || layer.has("hada_t2"))
    throw layer.impossible("LoHa with a core has no rows to divide");
  for (const char* name : {"hada_w1_a", "hada_w2_a"}) layer.take(name);
  for (const char* name : {"hada_w1_b", "hada_w2_b"}) layer.keep(name);
}

/// Where the pieces have other columns, their ranks add up, each zero in the rows of other pieces.
void join_loha_rows(RowJoiner& layer) {
  if (layer.any("hada_t1") || layer.any("hada_t2"))
    return layer.refuse("has no form for LoHa with a core of parts of one layer");
  const LayerWriting& one = *layer.adapted().front().first;
  if (layer.equal("hada_w1_b") && layer.equal("hada_w2_b") && layer.equal_scale()) {
    for (const char* name : {"hada_w1_a", "hada_w2_a"}) layer.put(name, layer.stacked(name));
    for (const char* name : {"hada_w1_b", "hada_w2_b"}) layer.put(name, layer.first(name));
    return layer.put_scale(one.alpha, one.rank);
  }
  for (const char* name : {"hada_w1_b", "hada_w2_b"}) layer.put(name, layer.all_ranks(name));
  layer.put("hada_w1_a", layer.block_diagonal("hada_w1_a"));
  layer.put("hada_w2_a", layer.block_diagonal("hada_w2_a", /*scaled=*/false));
  const auto ranks = static_cast<double>(layer.all_ranks("hada_w1_b").size(0));
  layer.put_scale(one.alpha / one.rank * ranks, ranks);
}

}  // namespace

PartFormat loha_format() {
  constexpr Spellings kBoth = kPeftNames | kShared;
  return {.part = "loha",
          .shown = "LoHa",
          .endings = {{".hada_w1_a", "hada_w1_a", kBoth},
                      {".hada_w1_b", "hada_w1_b", kBoth},
                      {".hada_w2_a", "hada_w2_a", kBoth},
                      {".hada_w2_b", "hada_w2_b", kBoth},
                      {".hada_t1", "hada_t1", kBoth, Telling::little},
                      {".hada_t2", "hada_t2", kBoth, Telling::little}},
          .peft = {.types = {"LOHA"}, .fields = {"use_effective_conv2d"}, .of_conv1d = false},
          .held_by = {AdapterFormat::lycoris, AdapterFormat::peft, AdapterFormat::comfyui},
          .recognises = [](const LayerTensors& layer) { return layer.has("hada_w1_b"); },
          .read = read_loha,
          .write = write_loha,
          .take_rows = take_loha_rows,
          .join_rows = join_loha_rows};
}

}  // namespace ringlet::formats
