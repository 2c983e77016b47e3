#include <algorithm>
#include <cmath>

#include <ATen/ops/matmul.h>

#include "ringlet/core/text.h"
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

/// b of the b (b - 1) / 2 numbers of a skew-symmetric block.
std::int64_t block_of(std::int64_t numbers) {
  return std::llround((1.0 + std::sqrt(1.0 + 8.0 * static_cast<double>(numbers))) / 2.0);
}

/// The numbers of PEFT's OFT. OneTrainer's scaled OFT divides them while it computes.
const at::Tensor& give_numbers(LayerReader& layer, std::int64_t block) {
  if (!layer.has("oft_scaled") || layer.scalar("oft_scaled") == 0.0)
    return layer.give("oft_r", "transform.blocks");
  const at::Tensor& v = layer.take("oft_r");
  const double divisor = 2.0 * std::sqrt(static_cast<double>(std::max<std::int64_t>(2, block) - 1));
  layer.give("transform.blocks", v.to(at::kFloat) / divisor);
  layer.decide("scaled OFT: its numbers are divided by 2 sqrt(block - 1)");
  return v;
}

void add_peft_cayley(LayerReader& layer, adapt::Options& options) {
  const PeftConfig* const config = layer.context().config;
  if (config == nullptr || config->flag("use_cayley_neumann", true)) {
    options["cayley"] = "neumann";
    options["transpose"] = "yes";
    options["terms"] = config == nullptr ? 5 : config->integer("num_cayley_neumann_terms", 5);
    layer.decide(
        "OFT on the input side, Cayley-Neumann series (its R is the transpose of the exact one)");
  } else {
    layer.decide("OFT on the input side, exact Cayley transform");
  }
  if (!layer.configured("coft")) return;
  const double eps = config->number("eps", 6e-5);
  if (!(eps > 0.0))
    throw Error(ErrorCode::unsupported, config->where(),
                "eps is " + exact_number(eps) + ", which limits the rotation to zero");
  options["constraint"] = eps;
  options["constrain"] = "block";
}

/// OneTrainer's is PEFT's with five terms, but it turns the weight of a convolution where PEFT
/// turns the input: the transpose.
void add_onetrainer_cayley(LayerReader& layer, adapt::Options& options) {
  layer.decide(
      "OFT on the input side, Cayley-Neumann series of five terms (OneTrainer; of convolutions "
      "the transpose)");
  options["cayley"] = "neumann";
  options["terms"] = 5;
  options["transpose"] = layer.shape().convolution ? "no" : "yes";
}

void read_triangles(LayerReader& layer) {
  layer.check_type("OFT");
  const std::int64_t numbers = layer.rank_of("oft_r", layer.file().tensors.at("oft_r"), 1);
  const std::int64_t b = block_of(numbers), width = layer.shape().patch();
  const at::Tensor& v = give_numbers(layer, b);
  // OneTrainer states nothing: one row for several blocks is shared.
  const bool share =
      layer.of_peft() ? layer.configured("block_share") : v.size(0) == 1 && width != b;
  if (v.dim() != 2 || b * (b - 1) / 2 != numbers || width % b != 0 ||
      v.size(0) != (share ? 1 : width / b))
    throw layer.bad("oft_r", "is not " + std::string(share ? "one block" : "the blocks") + " of " +
                                 std::to_string(width) + " inputs");
  adapt::Options options = layer.over_patches(width);
  options["block"] = b;
  options["share"] = share ? "yes" : "no";
  if (layer.of_peft())
    add_peft_cayley(layer, options);
  else
    add_onetrainer_cayley(layer, options);
  layer.add("oft", std::move(options));
}

/// LyCORIS' and kohya's.
void read_matrices(LayerReader& layer) {
  const at::Tensor& blocks = layer.give("oft_blocks", "transform.blocks");
  if (blocks.dim() != 3 || blocks.size(1) != blocks.size(2) ||
      blocks.size(0) * blocks.size(1) != layer.shape().out)
    throw layer.bad("oft_blocks",
                    "are not square blocks of " + std::to_string(layer.shape().out) + " outputs");
  adapt::Options options = {
      {"block", blocks.size(1)}, {"side", "output"}, {"form", "matrix"}, {"transpose", "yes"}};
  if (const double constraint = read_constraint(layer); constraint > 0.0) {
    options["constraint"] = constraint;
    options["constrain"] = "all";
  }
  layer.decide("OFT on the output side (LyCORIS, kohya)");
  layer.add("oft", std::move(options));
  read_row_scale(layer, "rescale");
}

/// LyCORIS before 2.1.0.dev9 (February 2024) saved the rotations, R^t W0 for each block of rows,
/// in place of the numbers that they are made from.
void read_rotations(LayerReader& layer) {
  const at::Tensor& r = layer.take("oft_diag");
  const std::int64_t out = layer.shape().out;
  if (r.dim() != 3 || r.size(1) != r.size(2) || r.size(0) * r.size(1) != out)
    throw layer.bad("oft_diag", "are not square blocks of " + std::to_string(out) + " outputs");
  const at::Tensor w0 = layer.context().layer->weight().to(at::kCPU, at::kFloat);
  const at::Tensor rows = w0.reshape({r.size(0), r.size(1), -1});
  const at::Tensor turned = at::matmul(r.to(at::kFloat).transpose(1, 2), rows);
  layer.give("residual.diff", (turned - rows).reshape(w0.sizes()));
  layer.add("diff");
  layer.decide(
      "oft_diag holds rotations of the outputs (LyCORIS before 2.1): what they change is read as "
      "differences");
}

void read_oft(LayerReader& layer) {
  if (layer.has("oft_r")) return read_triangles(layer);
  if (layer.has("oft_blocks")) return read_matrices(layer);
  read_rotations(layer);
}

bool recognises(const LayerTensors& layer) {
  if (layer.has("oft_r") || layer.has("oft_diag")) return true;
  return layer.has("oft_blocks") && layer.tensors.at("oft_blocks").dim() != 4;
}

void write_matrices(LayerWriter& layer, const adapt::PartSpec& part) {
  const double constraint = part.number("constraint");
  const bool same = part.word("side") == "output" && part.word("form") == "matrix" &&
                    part.yes("transpose") && part.word("cayley") == "exact" && !part.yes("share") &&
                    (constraint == 0.0 || part.word("constrain") == "all");
  if (!same) return layer.refuse_method();
  layer.put("oft_blocks", "transform.blocks");
  write_constraint(layer, constraint);
  write_row_scale(layer, "rescale", false);
}

void write_triangles(LayerWriter& layer, const adapt::PartSpec& part) {
  const bool neumann = part.word("cayley") == "neumann";
  const double constraint = part.number("constraint");
  const bool same = layer.transforms().size() == 1 && part.word("side") == "input" &&
                    part.word("form") == "triangle" && part.yes("transpose") == neumann &&
                    layer.of_patches(part) &&
                    (constraint == 0.0 || part.word("constrain") == "block");
  if (!same) return layer.refuse_method();
  layer.put("oft_r", "transform.blocks");
  layer.put_block(block_of(layer.numbers("transform.blocks").size(1)));
  layer.config("block_share") = part.yes("share");
  layer.config("use_cayley_neumann") = neumann;
  layer.config("num_cayley_neumann_terms") = part.integer("terms");
  layer.config("coft") = constraint > 0.0;
  layer.config("eps") = constraint > 0.0 ? constraint : 6e-5;
}

void write_oft(LayerWriter& layer) {
  if (!is_rotation(layer)) return;
  const adapt::PartSpec& part = *layer.transforms().front();
  if (layer.lycoris())
    write_matrices(layer, part);
  else
    write_triangles(layer, part);
}

/// Rotations of the input are the same for all rows. Blocks of outputs have to end where the rows
/// do; their limit is one for all, and so it is applied to the numbers.
void take_oft_rows(RowTaker& layer) {
  if (layer.has("rescale")) layer.take("rescale");
  if (layer.has("oft_r")) {
    layer.keep("oft_r");
    if (layer.has("oft_scaled")) layer.keep("oft_scaled");
    return;
  }
  const char* what = layer.has("oft_blocks") ? "oft_blocks" : "oft_diag";
  const at::Tensor& blocks = layer.use(what);
  if (blocks.dim() != 3) throw layer.mismatch(what, "are not square blocks of outputs");
  const std::int64_t b = blocks.size(1);
  if (!layer.is_aligned(b))
    throw layer.impossible("blocks of " + std::to_string(b) + " outputs reach over two of them");
  const at::Tensor own = layer.rows_of(what, b);
  layer.put(what, own);
  if (!layer.has("alpha") || !layer.has("oft_blocks")) return;
  const at::Tensor& alpha = layer.use("alpha");
  const double limit = alpha.numel() == 1 ? alpha.to(at::kDouble).item<double>() : 0.0;
  if (!(limit > 0.0)) return layer.keep("alpha");
  const bool in_all = layer.fused().naming == Naming::comfyui;  // see read_constraint()
  const double most = in_all ? limit : limit * static_cast<double>(layer.rows());
  const at::Tensor numbers = blocks.to(at::kFloat);
  const double norm = (numbers - numbers.transpose(1, 2)).norm().item<double>();
  if (norm > most) layer.put(what, own.to(at::kFloat) * (most / norm));
}

/// Exact for blocks of outputs without a limit; rows of other pieces are not turned.
void join_oft_rows(RowJoiner& layer) {
  const bool blocks = layer.has("oft_blocks") && layer.first("oft_blocks").dim() == 3;
  const std::int64_t b = blocks ? layer.first("oft_blocks").size(1) : 1;
  bool fits = blocks && layer.rows() % b == 0;
  for (const auto& [piece, rows] : layer.adapted())
    fits = fits && rows.begin % b == 0 && piece->tensors.at("oft_blocks").size(1) == b &&
           piece->tensors.at("alpha").to(at::kDouble).item<double>() == 0.0;
  if (!fits || (layer.any("rescale") && !(layer.has("rescale") && layer.is_complete())))
    return layer.refuse(
        "has OFT of a layer that is several here only with blocks of one size and without a "
        "constraint");
  layer.put("oft_blocks", layer.stacked("oft_blocks", b));
  layer.put("alpha", layer.first("alpha"));
  if (layer.any("rescale")) layer.put("rescale", layer.stacked("rescale"));
}

}  // namespace

PartFormat oft_format() {
  return {.part = "oft",
          .shown = "OFT",
          .algorithm = "diag-oft",
          .endings = {{".oft_R.weight", "oft_r", kPeftNames | kShared},
                      {".oft_R.scaled_oft", "oft_scaled", kShared, Telling::setting},
                      {".oft_blocks", "oft_blocks", kShared},
                      {".oft_diag", "oft_diag", kShared},
                      {".rescale", "rescale", kShared, Telling::little}},
          .peft = {.types = {"OFT"},
                   .fields = {"oft_block_size", "coft", "eps", "block_share", "use_cayley_neumann",
                              "num_cayley_neumann_terms"},
                   .block_size_field = "oft_block_size",
                   .block_number_field = "r",
                   .of_conv1d = false},
          .held_by = {AdapterFormat::lycoris, AdapterFormat::peft, AdapterFormat::comfyui},
          .recognises = recognises,
          .read = read_oft,
          .write = write_oft,
          .take_rows = take_oft_rows,
          .join_rows = join_oft_rows};
}

}  // namespace ringlet::formats
