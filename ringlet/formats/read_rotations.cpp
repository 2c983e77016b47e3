// Orthogonal transforms: OFT, BOFT and HRA of all programs.
#include <algorithm>
#include <cmath>

#include <ATen/ops/matmul.h>

#include "ringlet/core/text.h"
#include "ringlet/formats/layer_reader.h"

namespace ringlet::formats {

std::string LayerReader::over_patches(std::int64_t width) const {
  return width == shape_.patch() && shape_.positions() > 1 ? ",over=patches" : "";
}

const at::Tensor& LayerReader::give_oft_numbers(std::int64_t block) {
  if (!has("oft_scaled") || scalar("oft_scaled") == 0.0) return give("oft_r", "transform.blocks");
  const at::Tensor& v = take("oft_r");
  const double divisor = 2.0 * std::sqrt(static_cast<double>(std::max<std::int64_t>(2, block) - 1));
  give("transform.blocks", v.to(at::kFloat) / divisor);
  decisions_.insert("scaled OFT: its numbers are divided by 2 sqrt(block - 1)");
  return v;
}

void LayerReader::read_peft_oft() {
  check_type("OFT");
  const std::int64_t numbers = rank_of("oft_r", file_.tensors.at("oft_r"), 1);
  const auto b = static_cast<std::int64_t>(
      std::llround((1.0 + std::sqrt(1.0 + 8.0 * static_cast<double>(numbers))) / 2.0));
  const at::Tensor& v = give_oft_numbers(b);
  const bool peft = context_.naming == Naming::peft;
  const std::int64_t width = shape_.patch();
  // OneTrainer states nothing: one row for several blocks is shared.
  const bool share = peft ? configured("block_share") : v.size(0) == 1 && width != b;
  if (v.dim() != 2 || b * (b - 1) / 2 != numbers || width % b != 0 ||
      v.size(0) != (share ? 1 : width / b))
    throw bad("oft_r", "is not " + std::string(share ? "one block" : "the blocks") + " of " +
                           std::to_string(width) + " inputs");
  std::string more = over_patches(width);
  if (share) more += ",share=yes";
  more += peft ? peft_cayley() : onetrainer_cayley();
  reading_.method = "oft(block=" + std::to_string(b) + more + ")";
}

std::string LayerReader::peft_cayley() {
  std::string more;
  if (context_.config == nullptr || context_.config->flag("use_cayley_neumann", true)) {
    more += ",cayley=neumann,transpose=yes,terms=" +
            std::to_string(context_.config == nullptr
                               ? 5
                               : context_.config->integer("num_cayley_neumann_terms", 5));
    decisions_.insert(
        "OFT on the input side, Cayley-Neumann series (its R is the transpose of the exact one)");
  } else {
    decisions_.insert("OFT on the input side, exact Cayley transform");
  }
  if (!configured("coft")) return more;
  const double eps = context_.config->number("eps", 6e-5);
  if (!(eps > 0.0))
    throw Error(ErrorCode::unsupported, context_.config->where(),
                "eps is " + exact_number(eps) + ", which limits the rotation to nothing");
  return more + ",constraint=" + exact_number(eps) + ",constrain=block";
}

std::string LayerReader::onetrainer_cayley() {
  decisions_.insert(
      "OFT on the input side, Cayley-Neumann series of five terms (OneTrainer; of convolutions "
      "the transpose)");
  return std::string(",cayley=neumann,terms=5,transpose=") + (shape_.convolution ? "no" : "yes");
}

std::string LayerReader::row_scale(const char* what, int transform) {
  if (!has(what)) return "";
  const at::Tensor& scale = give(what, "transform_" + std::to_string(transform) + ".scale");
  if (scale.numel() != shape_.out) throw bad(what, "does not have one number per output");
  return "+diagonal(side=output)";
}

void LayerReader::read_lycoris_oft() {
  const at::Tensor& blocks = give("oft_blocks", "transform.blocks");
  const bool butterfly = blocks.dim() == 4, has_blocks = butterfly || blocks.dim() == 3;
  if (!has_blocks || blocks.size(-1) != blocks.size(-2) ||
      blocks.size(-3) * blocks.size(-1) != shape_.out)
    throw bad("oft_blocks", "are not square blocks of " + std::to_string(shape_.out) + " outputs");
  const std::int64_t b = blocks.size(-1);
  double constraint = has("alpha") ? scalar("alpha") : 0.0;
  if (!(constraint >= 0.0)) throw damaged("alpha", "is a constraint below zero");
  if (constraint > 0.0) checked_scale(constraint, file_.names.at("alpha"));
  // LyCORIS and kohya count it per output, ComfyUI, which trains such files too, in all.
  if (context_.naming == Naming::comfyui) constraint /= static_cast<double>(shape_.out);
  if (context_.kohya_oft && constraint == 0.0)
    throw Error(ErrorCode::unsupported, file_.names.at("oft_blocks"),
                "kohya's networks.oft with alpha 0 limits the rotation to nothing",
                "set alpha in the file, or train it again with LyCORIS' diag-oft");
  std::string more = ",side=output";
  if (constraint > 0.0) {
    more += ",constraint=" + exact_number(constraint) + (butterfly ? "" : ",constrain=all");
    decisions_.insert("OFT: alpha is the constraint on the rotation's size");
  }
  const std::string block = "(block=" + std::to_string(b);
  if (butterfly)
    reading_.method = "boft" + block + ",factors=" + std::to_string(blocks.size(0)) + more +
                      ",pairs=interleaved,skew=full)";
  else
    reading_.method = "oft" + block + more + ",form=matrix,transpose=yes)";
  decisions_.insert(butterfly ? "BOFT on the output side (LyCORIS)"
                              : "OFT on the output side (LyCORIS, kohya)");
  reading_.method += row_scale("rescale", 2);
}

void LayerReader::read_old_lycoris_oft() {
  const at::Tensor& r = take("oft_diag");
  if (r.dim() != 3 || r.size(1) != r.size(2) || r.size(0) * r.size(1) != shape_.out)
    throw bad("oft_diag", "are not square blocks of " + std::to_string(shape_.out) + " outputs");
  const at::Tensor w0 = context_.layer->weight().to(at::kCPU, at::kFloat);
  const at::Tensor rows = w0.reshape({r.size(0), r.size(1), -1});
  const at::Tensor turned = at::matmul(r.to(at::kFloat).transpose(1, 2), rows);
  give("residual.diff", (turned - rows).reshape(w0.sizes()));
  reading_.method = "diff";
  decisions_.insert(
      "oft_diag holds rotations of the outputs (LyCORIS before 2.1): what they change is read as "
      "differences");
}

void LayerReader::read_peft_boft() {
  check_type("BOFT");
  const at::Tensor& blocks = give("boft_r", "transform.blocks");
  const std::int64_t width = shape_.patch();
  if (blocks.dim() != 4 || blocks.size(2) != blocks.size(3) ||
      blocks.size(1) * blocks.size(2) != width)
    throw bad("boft_r", "are not square blocks of " + std::to_string(width) + " inputs");
  decisions_.insert("BOFT on the input side with " + std::to_string(blocks.size(0)) +
                    " factors (from the shape)");
  reading_.method = "boft(block=" + std::to_string(blocks.size(2)) +
                    ",factors=" + std::to_string(blocks.size(0)) + over_patches(width) + ")" +
                    row_scale("boft_s", 2);
}

void LayerReader::read_hra() {
  check_type("HRA");
  const at::Tensor& u = give("hra_u", "transform.u");
  if (u.dim() != 2 || u.size(0) != shape_.patch())
    throw bad("hra_u", "does not have one row per input");
  if ((u.to(at::kFloat).norm(2, 0) == 0).any().item<bool>())
    throw damaged("hra_u", "has a vector of length zero, which reflects nothing");
  check_rank("hra_u", u.size(1));
  if (configured("apply_GS") && u.size(1) > u.size(0))
    throw bad("hra_u", "has more vectors than can be orthogonal to each other");
  reading_.method = "hra(rank=" + std::to_string(u.size(1)) + over_patches(u.size(0)) +
                    (configured("apply_GS") ? ",orthogonal=yes)" : ")");
}

}  // namespace ringlet::formats
