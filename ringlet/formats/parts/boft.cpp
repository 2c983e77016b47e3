#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

/// PEFT's.
void read_inputs(LayerReader& layer) {
  layer.check_type("BOFT");
  const at::Tensor& blocks = layer.give("boft_r", "transform.blocks");
  const std::int64_t width = layer.shape().patch();
  if (blocks.dim() != 4 || blocks.size(2) != blocks.size(3) ||
      blocks.size(1) * blocks.size(2) != width)
    throw layer.bad("boft_r", "are not square blocks of " + std::to_string(width) + " inputs");
  layer.decide("BOFT on the input side with " + std::to_string(blocks.size(0)) +
               " factors (from the shape)");
  adapt::Options options = layer.over_patches(width);
  options["block"] = blocks.size(2);
  options["factors"] = blocks.size(0);
  layer.add("boft", std::move(options));
  read_row_scale(layer, "boft_s");
}

/// LyCORIS', under the name of its OFT.
void read_outputs(LayerReader& layer) {
  const at::Tensor& blocks = layer.give("oft_blocks", "transform.blocks");
  if (blocks.size(2) != blocks.size(3) || blocks.size(1) * blocks.size(3) != layer.shape().out)
    throw layer.bad("oft_blocks",
                    "are not square blocks of " + std::to_string(layer.shape().out) + " outputs");
  const double constraint = read_constraint(layer);
  layer.decide("BOFT on the output side (LyCORIS)");
  layer.add("boft", {{"block", blocks.size(3)},
                     {"factors", blocks.size(0)},
                     {"side", "output"},
                     {"pairs", "interleaved"},
                     {"skew", "full"},
                     {"constraint", constraint}});
  read_row_scale(layer, "rescale");
}

bool of_outputs(const LayerTensors& layer) {
  return layer.has("oft_blocks") && layer.tensors.at("oft_blocks").dim() == 4;
}

void write_outputs(LayerWriter& layer, const adapt::PartSpec& part) {
  const bool same = part.word("side") == "output" && part.word("pairs") == "interleaved" &&
                    part.word("skew") == "full";
  if (!same) return layer.refuse_method();
  layer.put("oft_blocks", "transform.blocks");
  write_constraint(layer, part.number("constraint"));
  write_row_scale(layer, "rescale", false);
}

void write_inputs(LayerWriter& layer, const adapt::PartSpec& part) {
  const bool same = part.word("side") == "input" && part.word("pairs") == "halves" &&
                    part.word("skew") == "half" && part.number("constraint") == 0.0 &&
                    layer.of_patches(part);
  if (!same) return layer.refuse_method();
  layer.put("boft_r", "transform.blocks");
  layer.put_block(part.integer("block"));
  layer.config("boft_n_butterfly_factor") = part.integer("factors");
  write_row_scale(layer, "boft_s", true);
}

void write_boft(LayerWriter& layer) {
  if (!is_rotation(layer)) return;
  const adapt::PartSpec& part = *layer.transforms().front();
  if (layer.lycoris())
    write_outputs(layer, part);
  else
    write_inputs(layer, part);
}

}  // namespace

PartFormat boft_format() {
  return {.part = "boft",
          .shown = "BOFT",
          .endings = {{".boft_R", "boft_r", kPeftNames},
                      {".boft_s", "boft_s", kPeftNames, Telling::little}},
          .peft = {.types = {"BOFT"},
                   .fields = {"boft_dropout", "boft_block_size", "boft_block_num",
                              "boft_n_butterfly_factor"},
                   .block_size_field = "boft_block_size",
                   .block_number_field = "boft_block_num",
                   .of_conv1d = false},
          .held_by = {AdapterFormat::lycoris, AdapterFormat::peft, AdapterFormat::comfyui},
          .recognises =
              [](const LayerTensors& layer) { return layer.has("boft_r") || of_outputs(layer); },
          .read =
              [](LayerReader& layer) {
                if (layer.has("boft_r")) return read_inputs(layer);
                read_outputs(layer);
              },
          .write = write_boft};
}

}  // namespace ringlet::formats
