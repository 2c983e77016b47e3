#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/kronecker.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/formats/adapter_families.h"

namespace ringlet::formats {
namespace {

using adapt::LayerShape;
using adapt::PartKind;
using adapt::PartSpec;

/// Whether the checkpoint stores the weight as [in, out], as GPT-2's Conv1D does.
bool is_stored_transposed(const nn::Layer& layer) {
  if (layer.weight().dim() != 2) return false;
  return layer.stored(at::zeros({1, 2})).size(0) == 2;
}

/// Writes one layer for one program; what the program has no form for ends up in `refused`.
class Writer {
 public:
  Writer(Naming naming, const nn::Layer& layer, const adapt::TransformResidual& adapter)
      : naming_(naming),
        layer_(layer),
        shape_(LayerShape::of(layer.weight())),
        method_(adapter.method()) {
    for (const adapt::Parameters& some : {adapter.parameters(), adapter.constants()})
      for (const auto& [name, tensor] : some) numbers_[name] = tensor.detach().cpu();
    for (const PartSpec& part : method_.parts) {
      const PartKind kind = adapt::find_part(part.name).kind;
      if (kind == PartKind::transform) transforms_.push_back(&part);
      if (kind == PartKind::residual) residual_ = &part;
      if (kind == PartKind::magnitude) magnitude_ = &part;
      if (kind == PartKind::bias) bias_ = &part;
    }
  }

  LayerWriting write() {
    if (transforms_.empty())
      write_residual();
    else
      write_transforms();
    if (peft() && writing_.refused.empty()) check_peft_class();
    return std::move(writing_);
  }

 private:
  bool lycoris() const { return naming_ == Naming::kohya || naming_ == Naming::lycoris; }
  bool peft() const { return naming_ == Naming::peft; }

  void refuse(const std::string& why) { writing_.refused = why; }
  void refuse_method() { refuse("has no form for " + adapt::method_text(method_)); }

  void put(const char* what, const at::Tensor& tensor) { writing_.tensors[what] = tensor; }
  void put(const char* what, const char* parameter) { put(what, numbers_.at(parameter)); }

  /// PEFT chooses its code by the layer's class, and not every method has it for every class.
  void check_peft_class() {
    const std::string& name = method_.parts.front().name;
    writing_.fan_in_fan_out = is_stored_transposed(layer_);
    if (writing_.fan_in_fan_out)
      for (const char* lacking : {"oft", "boft", "hra", "loha", "lokr"})
        if (name == lacking) refuse("has no " + name + " for layers of class Conv1D (GPT-2)");
    if (dynamic_cast<const nn::EmbeddingLayer*>(&layer_) != nullptr) write_table();
  }

  /// LoRA of a table has names of its own and both factors transposed: (B A)^t is added to it.
  void write_table() {
    const auto& tensors = writing_.tensors;
    if (tensors.size() != 2 || !tensors.contains("down") || !tensors.contains("up"))
      return refuse("has LoRA only for tables, not " + adapt::method_text(method_));
    writing_.tensors = {{"table_down", tensors.at("up").t().contiguous()},
                        {"table_up", tensors.at("down").t().contiguous()}};
  }

  /// alpha and rank: a tensor, or fields of the configuration.
  void put_scale(double alpha, double rank) {
    if (lycoris()) put("alpha", at::scalar_tensor(alpha, at::kFloat));
    writing_.alpha = alpha;
    writing_.rank = rank;
  }

  void write_residual() {
    if (residual_ == nullptr) {
      if (magnitude_ == nullptr && bias_ != nullptr && lycoris() && bias_->number("scale") == 1.0)
        return put("diff_b", "bias.d");
      return refuse_method();
    }
    const std::string& name = residual_->name;
    const bool everybody = naming_ != Naming::cloneofsimo;
    if (name == "lora" && everybody) return write_lora();
    if (bias_ != nullptr && name != "diff") return refuse_method();
    if (name == "loha" && (lycoris() || peft())) return write_loha();
    if (name == "lokr" && (lycoris() || peft())) return write_lokr();
    if (name == "diff" && lycoris()) return write_difference();
    if (peft() && magnitude_ == nullptr && !shape_.convolution) {
      if (name == "fourierft") return write_fourier();
      if (name == "vera") return write_vera();
    }
    refuse_method();
  }

  /// down, up and the scale of a low rank; a start that is not zero doubles the ranks.
  void put_low_rank(const char* down_name, const char* up_name) {
    at::Tensor down = numbers_.at("residual.down"), up = numbers_.at("residual.up");
    double rank = residual_->number("rank"), alpha = residual_->number("alpha");
    const bool root = residual_->word("scaling") == "sqrt";
    double scale = alpha / (root ? std::sqrt(rank) : rank);
    if (numbers_.contains("residual.down_start")) {
      down = at::cat({down, -numbers_.at("residual.down_start")});
      up = at::cat({up, numbers_.at("residual.up_start")}, 1);
      rank *= 2.0;
      alpha = scale * rank;
    } else if (root) {
      if (peft())
        writing_.config["use_rslora"] = true;
      else
        alpha *= std::sqrt(rank);
    }
    if (numbers_.contains("residual.mid")) {
      if (lycoris())
        put("mid", "residual.mid");
      else
        down = at::einsum("ijkl,jc->ickl", {numbers_.at("residual.mid"), down});
    }
    if (shape_.convolution) {
      if (down.dim() == 2) down = down.unsqueeze(-1).unsqueeze(-1);
      up = up.unsqueeze(-1).unsqueeze(-1);
    }
    put(down_name, down);
    put(up_name, up);
    put_scale(alpha, rank);
    scale_ = scale;
  }

  void write_lora() {
    put_low_rank("down", "up");
    if (bias_ != nullptr) {
      const bool same = std::abs(bias_->number("scale") - scale_) <= 1e-12 * scale_;
      if (!peft() || !same || magnitude_ != nullptr) return refuse_method();
      put("up_bias", "bias.d");
      writing_.config["lora_bias"] = true;
    }
    put_magnitude();
    if (magnitude_ != nullptr && peft()) writing_.config["use_dora"] = true;
  }

  void put_magnitude() {
    if (magnitude_ == nullptr) return;
    const at::Tensor& m = numbers_.at("magnitude.m");
    const bool columns = magnitude_->word("axis") == "input";
    if (columns && !lycoris())
      return refuse("has DoRA's lengths for output rows only, these are of input columns");
    if (lycoris()) {
      std::vector<std::int64_t> sizes(shape_.convolution ? 4 : 2, 1);
      sizes[columns ? 1 : 0] = m.numel();
      put("magnitude", m.view(sizes));
    } else {
      put("magnitude", shape_.convolution ? m.view({1, -1, 1, 1}) : m);
    }
  }

  void write_loha() {
    for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"})
      if (const auto found = numbers_.find(std::string("residual.") + name);
          found != numbers_.end())
        writing_.tensors[std::string("hada_") + name] = found->second;
    if (peft() && numbers_.contains("residual.t1")) writing_.config["use_effective_conv2d"] = true;
    finish_product();
  }

  void write_lokr() {
    for (const char* name : {"w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"}) {
      const auto found = numbers_.find(std::string("residual.") + name);
      if (found == numbers_.end()) continue;
      // A low-rank kernel is stored flat.
      const bool flat = std::string_view(name) == "w2_b" && found->second.dim() == 4;
      writing_.tensors[std::string("lokr_") + name] =
          flat ? found->second.flatten(1) : found->second;
    }
    if (peft()) {
      if (numbers_.contains("residual.t2")) writing_.config["use_effective_conv2d"] = true;
      if (numbers_.contains("residual.w1_a")) writing_.config["decompose_both"] = true;
      return refuse(lokr_refusal());
    }
    const bool whole = numbers_.contains("residual.w1") && numbers_.contains("residual.w2");
    if (whole && residual_->number("alpha") != residual_->number("rank"))
      return refuse("gives LoKr of two whole factors the scale 1, this one has another");
    finish_product();
  }

  /// PEFT makes the factors' sizes from its configuration, so that they must come out again.
  std::string lokr_refusal() {
    if (magnitude_ != nullptr) return "has no DoRA for LoKr";
    const auto sizes = [&](const char* whole, const char* part, int axis) {
      const auto found = numbers_.find(std::string("residual.") + whole);
      if (found != numbers_.end()) return found->second.size(axis);
      return numbers_.at(std::string("residual.") + part).size(axis);
    };
    const std::int64_t a = sizes("w1", "w1_a", 0), c = sizes("w1", "w1_b", 1);
    std::optional<std::int64_t> factor;
    const auto peft_split = [](std::int64_t n, std::int64_t f) {
      return f > 0 && n % f == 0 ? f : adapt::Kronecker::split(n, f).first;
    };
    for (std::int64_t f = -1; f <= std::max(a, c); ++f)
      if (f != 0 && peft_split(shape_.out, f) == a && peft_split(shape_.in, f) == c) {
        factor = f;
        break;
      }
    if (!factor) return "cannot express LoKr factors of " + adapt::method_text(method_);
    writing_.config["decompose_factor"] = *factor;
    put_scale(residual_->number("alpha"), residual_->number("rank"));
    return "";
  }

  void finish_product() {
    if (magnitude_ != nullptr && !lycoris()) return refuse_method();
    put_scale(residual_->number("alpha"), residual_->number("rank"));
    put_magnitude();
  }

  void write_difference() {
    put("diff", "residual.diff");
    if (bias_ != nullptr) {
      if (bias_->number("scale") != 1.0) return refuse_method();
      put("diff_b", "bias.d");
    }
    put_magnitude();
  }

  void write_fourier() {
    put("spectrum", "residual.spectrum");
    writing_.config["n_frequency"] = numbers_.at("residual.spectrum").numel();
    writing_.config["scaling"] = residual_->number("scale");
    writing_.config["random_loc_seed"] = residual_->integer("seed");
  }

  void write_vera() {
    put("vera_b", "residual.b");
    put("vera_d", "residual.d");
    writing_.config["r"] = residual_->integer("rank");
    writing_.config["projection_prng_key"] = residual_->integer("seed");
    writing_.config["save_projection"] = false;
  }

  /// Whether a second transform is no more than a scale of output rows.
  bool scales_rows(const PartSpec& part) const {
    return part.name == "diagonal" && part.word("side") == "output" &&
           part.word("form") == "factor" && !part.yes("bias");
  }

  void write_transforms() {
    const PartSpec& first = *transforms_.front();
    const bool rows = transforms_.size() == 2 && scales_rows(*transforms_.back());
    if (transforms_.size() > (rows ? 2U : 1U) || magnitude_ != nullptr || bias_ != nullptr)
      return refuse_method();
    if (residual_ != nullptr) {
      if (first.name == "lowrank" && residual_->name == "lora" && lycoris()) return write_glora();
      return refuse_method();
    }
    if (first.name == "oft" && lycoris()) return write_lycoris_oft(first, rows);
    if (first.name == "oft" && peft() && !rows) return write_peft_oft(first);
    if (first.name == "boft" && lycoris()) return write_lycoris_boft(first, rows);
    if (first.name == "boft" && peft()) return write_peft_boft(first, rows);
    if (first.name == "hra" && peft() && of_patches(first)) {
      put("hra_u", "transform.u");
      writing_.config["r"] = first.integer("rank");
      if (first.yes("orthogonal")) writing_.config["apply_GS"] = true;
      return;
    }
    if (first.name == "diagonal" && !rows && (lycoris() || peft())) return write_diagonal(first);
    refuse_method();
  }

  bool of_patches(const PartSpec& part) const {
    return shape_.positions() == 1 || part.word("over") == "patches";
  }

  void write_glora() {
    const PartSpec& first = *transforms_.front();
    const bool same = first.number("rank") == residual_->number("rank") &&
                      first.number("alpha") == residual_->number("alpha") &&
                      residual_->word("scaling") == "rank" && !numbers_.contains("residual.mid") &&
                      !numbers_.contains("residual.down_start");
    if (!same) return refuse_method();
    put_low_rank("b2", "b1");
    for (const char* name : {"a1", "a2"}) {
      const at::Tensor& a = numbers_.at(std::string("transform.") + name);
      put(name, shape_.convolution ? a.unsqueeze(-1).unsqueeze(-1) : a);
    }
  }

  void put_row_scale(const char* what, bool rows, at::IntArrayRef sizes, bool always) {
    if (rows)
      put(what, numbers_.at("transform_2.scale").view(sizes));
    else if (always)
      put(what, at::ones(sizes));
  }

  std::vector<std::int64_t> column_sizes() const {
    if (shape_.convolution) return {shape_.out, 1, 1, 1};
    return {shape_.out, 1};
  }

  void write_lycoris_oft(const PartSpec& part, bool rows) {
    const double constraint = part.number("constraint");
    const bool same = part.word("side") == "output" && part.word("form") == "matrix" &&
                      part.yes("transpose") && part.word("cayley") == "exact" &&
                      !part.yes("share") && (constraint == 0.0 || part.word("constrain") == "all");
    if (!same) return refuse_method();
    put("oft_blocks", "transform.blocks");
    put_constraint(constraint);
    put_row_scale("rescale", rows, column_sizes(), false);
  }

  /// LyCORIS keeps the constraint as alpha; without one it is the integer 0.
  void put_constraint(double constraint) {
    put("alpha",
        constraint == 0.0 ? at::zeros({}, at::kLong) : at::scalar_tensor(constraint, at::kFloat));
  }

  void write_lycoris_boft(const PartSpec& part, bool rows) {
    const bool same = part.word("side") == "output" && part.word("pairs") == "interleaved" &&
                      part.word("skew") == "full";
    if (!same) return refuse_method();
    put("oft_blocks", "transform.blocks");
    put_constraint(part.number("constraint"));
    put_row_scale("rescale", rows, column_sizes(), false);
  }

  /// PEFT has one size or number of blocks for all layers, which the whole file decides.
  void put_block(std::int64_t block) {
    writing_.width = shape_.patch();
    writing_.block = block;
  }

  void write_peft_oft(const PartSpec& part) {
    const bool neumann = part.word("cayley") == "neumann";
    const double constraint = part.number("constraint");
    const bool same = part.word("side") == "input" && part.word("form") == "triangle" &&
                      part.yes("transpose") == neumann && of_patches(part) &&
                      (constraint == 0.0 || part.word("constrain") == "block");
    if (!same) return refuse_method();
    put("oft_r", "transform.blocks");
    const std::int64_t numbers = numbers_.at("transform.blocks").size(1);
    const auto block = static_cast<std::int64_t>(
        std::llround((1.0 + std::sqrt(1.0 + 8.0 * static_cast<double>(numbers))) / 2.0));
    put_block(block);
    writing_.config["block_share"] = part.yes("share");
    writing_.config["use_cayley_neumann"] = neumann;
    writing_.config["num_cayley_neumann_terms"] = part.integer("terms");
    writing_.config["coft"] = constraint > 0.0;
    writing_.config["eps"] = constraint > 0.0 ? constraint : 6e-5;
  }

  void write_peft_boft(const PartSpec& part, bool rows) {
    const bool same = part.word("side") == "input" && part.word("pairs") == "halves" &&
                      part.word("skew") == "half" && part.number("constraint") == 0.0 &&
                      of_patches(part);
    if (!same) return refuse_method();
    put("boft_r", "transform.blocks");
    put_block(part.integer("block"));
    writing_.config["boft_n_butterfly_factor"] = part.integer("factors");
    if (shape_.convolution)
      put_row_scale("boft_s", rows, {1, shape_.out}, true);
    else
      put_row_scale("boft_s", rows, {shape_.out, 1}, true);
  }

  void write_diagonal(const PartSpec& part) {
    const at::Tensor& scale = numbers_.at("transform.scale");
    const bool output = part.word("side") == "output", offset = part.word("form") == "offset";
    const bool of_bias = output && part.yes("bias") && layer_.bias().defined();
    if (lycoris()) {
      if (of_bias) return refuse("scales no bias, this IA3 does");
      const at::Tensor w = offset ? scale : scale - 1.0;
      put("ia3", shape_.convolution ? w.view({1, -1, 1, 1}) : w);
      put("on_input", at::scalar_tensor(output ? 0 : 1, at::kLong));
      return;
    }
    if (output && !of_bias && layer_.bias().defined())
      return refuse("scales the bias, this IA3 does not");
    const at::Tensor l = offset ? scale + 1.0 : scale;
    if (shape_.convolution)
      put("ia3", l.view({1, -1, 1, 1}));
    else
      put("ia3", output ? l.view({-1, 1}) : l.view({1, -1}));
    writing_.of_input = !output;
  }

  Naming naming_;
  const nn::Layer& layer_;
  LayerShape shape_;
  adapt::Method method_;
  std::map<std::string, at::Tensor> numbers_;
  std::vector<const PartSpec*> transforms_;
  const PartSpec* residual_ = nullptr;
  const PartSpec* magnitude_ = nullptr;
  const PartSpec* bias_ = nullptr;
  LayerWriting writing_;
  double scale_ = 1.0;
};

}  // namespace

LayerWriting write_layer(Naming naming, const nn::Layer& layer,
                         const adapt::TransformResidual& adapter) {
  return Writer(naming, layer, adapter).write();
}

}  // namespace ringlet::formats
