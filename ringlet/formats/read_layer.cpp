#include <cmath>

#include <ATen/ops/matmul.h>

#include "ringlet/adapt/kronecker.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/adapter_families.h"

namespace ringlet::formats {
namespace {

using adapt::LayerShape;

/// Takes tensors out of a layer, one after the other; none may be left over.
class Reader {
 public:
  Reader(const LayerTensors& file, const ReadingContext& context, std::set<std::string>& decisions)
      : file_(file),
        context_(context),
        decisions_(decisions),
        shape_(LayerShape::of(context.layer->weight())) {}

  LayerReading read() {
    for (const auto& [what, tensor] : file_.tensors) check_finite(what, tensor);
    check_base();
    read_family();
    read_bias();
    if (has("alpha") && !used_.contains("alpha")) {
      take("alpha");
      decisions_.insert("alpha counts for nothing beside a method without a scale");
    }
    for (const auto& [what, tensor] : file_.tensors)
      if (!used_.contains(what))
        throw Error(ErrorCode::bad_format, file_.names.at(what),
                    "does not belong to the rest of its layer's tensors (" + reading_.method + ")",
                    "the file is damaged, or of a method that is not known here");
    return std::move(reading_);
  }

 private:
  bool has(const char* what) const { return file_.tensors.contains(what); }

  Error bad(const char* what, const std::string& problem) const {
    const auto name = file_.names.find(what);
    return {ErrorCode::mismatch, name == file_.names.end() ? file_.prefix : name->second, problem,
            "the adapter was made for another model, or is damaged"};
  }

  void check_finite(const std::string& what, const at::Tensor& tensor) const {
    const at::ScalarType type = tensor.scalar_type();
    const bool setting = what == "alpha" || what == "on_input" || what == "oft_scaled";
    const bool whole = at::isIntegralType(type, true) && !at::isBarebonesUnsignedType(type);
    if (!is_factor_type(type) && !(setting && whole))
      throw bad(what.c_str(), std::string("has numbers of type ") + at::toString(type));
    if (tensor.numel() == 0) throw bad(what.c_str(), "is empty");
    if (!tensor.isfinite().all().item<bool>())
      throw Error(ErrorCode::non_finite, file_.names.at(what), "holds a NaN or an infinity",
                  "the file is damaged, or its training diverged");
  }

  /// PEFT keeps the weight of tables and heads beside their adapters, and loads it with them.
  void check_base() {
    if (!has("base_weight")) return;
    const at::Tensor& kept = take("base_weight");
    const at::Tensor own = context_.layer->stored(context_.layer->weight());
    if (kept.sizes() != own.sizes() || !at::equal(kept.to(at::kFloat), own.to(at::kFloat)))
      throw bad("base_weight", "is another weight than the model's own");
  }

  const at::Tensor& take(const char* what) {
    const auto found = file_.tensors.find(what);
    if (found == file_.tensors.end())
      throw Error(ErrorCode::bad_format, file_.prefix + ending(context_.naming, what), "is missing",
                  "the file is incomplete; download it again");
    used_.insert(what);
    return found->second;
  }

  /// A tensor that is a parameter of ringlet's as it stands.
  const at::Tensor& give(const char* what, const std::string& parameter) {
    const at::Tensor& tensor = take(what);
    reading_.tensors[parameter] = tensor;
    reading_.names[parameter] = file_.names.at(what);
    return tensor;
  }

  void give(const std::string& parameter, const at::Tensor& tensor) {
    reading_.tensors[parameter] = tensor;
  }

  /// A tensor of one number.
  double scalar(const char* what) {
    const at::Tensor& stored = take(what);
    if (stored.numel() != 1) throw bad(what, "is not one number");
    return stored.to(at::kDouble).item<double>();
  }

  /// alpha, from the file, the configuration, or the rank.
  double alpha(std::int64_t rank) {
    if (has("alpha")) {
      const double value = scalar("alpha");
      if (value < 0.0) throw bad("alpha", "is " + exact_number(value) + ", below zero");
      if (value == 0.0) {
        decisions_.insert("alpha 0 means alpha = rank (scale 1), as in kohya and LyCORIS");
        return static_cast<double>(rank);
      }
      decisions_.insert("scale = alpha / rank, alpha from the file");
      return value;
    }
    if (context_.config != nullptr) {
      const PeftConfig& config = *context_.config;
      const double general = config.number("lora_alpha", config.number("alpha", 8.0));
      decisions_.insert("scale = alpha / rank, alpha from the configuration");
      return config.for_layer("alpha_pattern", context_.path, general);
    }
    decisions_.insert("no alpha in the file: scale 1");
    return static_cast<double>(rank);
  }

  /// A PEFT configuration must be one of what the tensors are.
  void check_type(const char* type) const {
    if (context_.naming == Naming::peft && context_.config->type() != type)
      throw Error(ErrorCode::bad_format, context_.config->where(),
                  "says peft_type \"" + context_.config->type() + "\", but " + file_.prefix +
                      " has tensors of " + type,
                  "the folder was put together wrongly");
  }

  /// And of their rank.
  void check_rank(const char* what, std::int64_t rank) const {
    if (context_.config == nullptr) return;
    const std::int64_t stated = context_.config->rank(context_.path, rank);
    if (stated != rank)
      throw bad(what, "is of rank " + std::to_string(rank) + ", the configuration says rank " +
                          std::to_string(stated));
  }

  bool configured(const char* flag) const {
    return context_.config != nullptr && context_.config->flag(flag);
  }

  std::string ranked(const std::string& part, std::int64_t rank, double of_alpha,
                     const std::string& more = "") const {
    return part + "(rank=" + std::to_string(rank) + ",alpha=" + exact_number(of_alpha) + more + ")";
  }

  std::int64_t rank_of(const char* what, const at::Tensor& tensor, std::int64_t axis) const {
    if (tensor.dim() <= axis) throw bad(what, "has too few axes");
    return tensor.size(axis);
  }

  /// "+magnitude(…)" where the file has one.
  std::string magnitude() {
    if (!configured("use_dora") && !has("magnitude")) return "";
    const at::Tensor& m = give("magnitude", "magnitude.m");
    const bool peft = !file_.names.at("magnitude").ends_with(".dora_scale");
    // [1, in] is the axis of LyCORIS before 3.2; PEFT's convolutions are [1, out, 1, 1].
    const bool columns = !peft && m.dim() > 1 && m.size(0) == 1 && m.numel() == shape_.in &&
                         (shape_.in != 1 || shape_.out != 1);
    if (m.numel() != (columns ? shape_.in : shape_.out))
      throw bad("magnitude", "has " + std::to_string(m.numel()) + " numbers, the layer " +
                                 std::to_string(shape_.out) + " outputs and " +
                                 std::to_string(shape_.in) + " inputs");
    decisions_.insert(columns ? "DoRA's lengths are those of input columns (from the shape [1, in])"
                              : "DoRA's lengths are those of output rows");
    std::string text = columns ? "+magnitude(axis=input" : "+magnitude(axis=output";
    return text + (peft ? ")" : ",norm=exact)");
  }

  void read_family() {
    if (has("hada_w1_b")) return read_loha();
    if (has("lokr_w1") || has("lokr_w1_a")) return read_lokr();
    if (has("oft_r")) return read_peft_oft();
    if (has("oft_blocks")) return read_lycoris_oft();
    if (has("oft_diag")) return read_old_lycoris_oft();
    if (has("boft_r")) return read_peft_boft();
    if (has("hra_u")) return read_hra();
    if (has("a1")) return read_glora();
    if (has("ia3")) return read_ia3();
    if (has("spectrum")) return read_fourier();
    if (has("vera_b")) return read_vera();
    if (has("diff") || has("set_weight")) return read_difference();
    if (has("rank_scale")) return read_adalora();
    if (has("down") || has("up")) return read_lora();
    if (has("table_down") || has("table_up")) return read_table();
    if (has("saved_weight") || has("saved_bias")) return read_saved();
    if (has("diff_b")) return;  // read() takes it
    throw Error(ErrorCode::unsupported, file_.telling_name(), "is a tensor of no known method",
                "merge the adapter with the program that made it, and use the merged model");
  }

  void read_lora() {
    check_type("LORA");
    const at::Tensor& down = give("down", "residual.down");
    const at::Tensor& up = give("up", "residual.up");
    const std::int64_t rank = rank_of("down", down, 0);
    if (rank_of("up", up, 1) != rank)
      throw bad("up", "has " + std::to_string(up.size(1)) + " ranks, the other factor " +
                          std::to_string(rank));
    check_rank("down", rank);
    std::string more;
    const bool mid = has("mid");
    if (mid) {
      if (shape_.positions() == 1)
        throw bad("mid", "is a core for a kernel, which the layer lacks");
      give("mid", "residual.mid");
      more += ",tucker=yes";
    }
    if (configured("use_rslora")) {
      more += ",scaling=sqrt";
      decisions_.insert("rsLoRA: scale = alpha / sqrt(rank)");
    }
    const std::string start = start_from();
    const double of_alpha = alpha(rank);
    if (!start.empty()) more += start_from_weight(start, rank, of_alpha, more);
    std::string bias;
    if (configured("lora_bias") || has("up_bias")) {
      const double root = more.find("sqrt") != std::string::npos ? std::sqrt(rank) : rank;
      give("up_bias", "bias.d");
      bias = "+bias(scale=" + exact_number(of_alpha / root) + ")";
    }
    reading_.method = ranked("lora", rank, of_alpha, more) + magnitude() + bias;
  }

  /// PEFT's LoRA of a table of [count, width]: (B A)^t is added to it.
  void read_table() {
    check_type("LORA");
    const at::Tensor &a = take("table_down"), &b = take("table_up");
    const std::int64_t rank = rank_of("table_down", a, 0);
    if (a.dim() != 2 || b.dim() != 2 || b.size(1) != rank || a.size(1) != shape_.out ||
        b.size(0) != shape_.in || shape_.convolution)
      throw bad("table_down", "and its partner do not fit a table of " +
                                  std::to_string(shape_.out) + "x" + std::to_string(shape_.in));
    check_rank("table_down", rank);
    if (!start_from().empty() || configured("use_dora"))
      throw Error(ErrorCode::unsupported, file_.names.at("table_down"),
                  "is of a table with DoRA or a start from the weight, which is not known here",
                  "merge the adapter with PEFT and use the merged model");
    give("residual.up", a.t().contiguous());
    give("residual.down", b.t().contiguous());
    reading_.method =
        ranked("lora", rank, alpha(rank), configured("use_rslora") ? ",scaling=sqrt" : "");
  }

  /// "pissa" or "olora" where PEFT's start changes the layer's weight.
  std::string start_from() const {
    if (context_.config == nullptr) return "";
    const std::string word = context_.config->word("init_lora_weights", "");
    if (word.starts_with("pissa")) return "pissa";
    if (word == "olora") return word;
    for (const char* harmless : {"", "gaussian", "orthogonal", "eva", "mica", "lora_ga"})
      if (word == harmless) return "";
    throw Error(ErrorCode::unsupported, context_.config->where(),
                "init_lora_weights is \"" + shown(word) +
                    "\", which may change the model's weight and is not known here",
                "merge the adapter with PEFT and use the merged model");
  }

  /// PEFT starts such adapters again when it loads them, and so the start has to be found again.
  std::string start_from_weight(const std::string& start, std::int64_t rank, double of_alpha,
                                const std::string& more) {
    const std::string option = ",init=" + start;
    adapt::FactorTable factors;
    const auto fresh =
        adapt::build_adapter(to_method(ranked("lora", rank, of_alpha, more + option), file_.prefix),
                             *context_.layer, factors, Random(0), file_.prefix);
    for (const auto& [name, tensor] : fresh->constants()) {
      if (!tensor.isfinite().all().item<bool>())
        throw Error(ErrorCode::non_finite, file_.prefix,
                    "has no finite start of \"" + start + "\" with alpha " + exact_number(of_alpha),
                    "the configuration is damaged, or the model's weight not finite");
      give(name, tensor);
    }
    decisions_.insert(start + ": the start is taken from the model's own weight, as PEFT does");
    return option;
  }

  void read_adalora() {
    check_type("ADALORA");
    const at::Tensor& down = take("down");
    const at::Tensor& scale = take("rank_scale");
    rank_of("down", down, 1);
    const std::int64_t rank = down.size(0), first_rank = context_.config->integer("init_r", 12);
    if (first_rank < 1)
      throw Error(ErrorCode::unsupported, context_.config->where(),
                  "init_r is " + std::to_string(first_rank) + ", not a rank");
    const double initial = static_cast<double>(first_rank) + 1e-5;
    if (scale.numel() != rank) throw bad("rank_scale", "does not have one number per rank");
    give("residual.down", down.to(at::kFloat).flatten(1) * scale.to(at::kFloat).view({-1, 1}));
    give("up", "residual.up");
    // AdaLoRA's scale is alpha over the first rank, whatever rank is left.
    const double of_alpha = alpha(rank) * static_cast<double>(rank) / initial;
    decisions_.insert("AdaLoRA becomes LoRA: its diagonal goes into the first factor");
    reading_.method = ranked("lora", rank, of_alpha);
  }

  void read_loha() {
    check_type("LOHA");
    for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b"})
      give((std::string("hada_") + name).c_str(), std::string("residual.") + name);
    const bool tucker = has("hada_t1") || has("hada_t2");
    if (tucker) {
      give("hada_t1", "residual.t1");
      give("hada_t2", "residual.t2");
    }
    const std::int64_t rank = rank_of("hada_w1_b", file_.tensors.at("hada_w1_b"), 0);
    check_rank("hada_w1_b", rank);
    reading_.method = ranked("loha", rank, alpha(rank), tucker ? ",tucker=yes" : "") + magnitude();
  }

  void read_lokr() {
    check_type("LOKR");
    const bool whole_1 = has("lokr_w1"), whole_2 = has("lokr_w2"), tucker = has("lokr_t2");
    std::int64_t rank = 0, a = 0, b = 0, c = 0, d = 0;
    if (whole_1) {
      const at::Tensor& w1 = give("lokr_w1", "residual.w1");
      a = rank_of("lokr_w1", w1, 0);
      c = rank_of("lokr_w1", w1, 1);
    } else {
      a = rank_of("lokr_w1_a", give("lokr_w1_a", "residual.w1_a"), 0);
      const at::Tensor& second = give("lokr_w1_b", "residual.w1_b");
      rank = rank_of("lokr_w1_b", second, 0);
      c = rank_of("lokr_w1_b", second, 1);
    }
    if (whole_2) {
      const at::Tensor& w2 = give("lokr_w2", "residual.w2");
      b = rank_of("lokr_w2", w2, 0);
      d = columns("lokr_w2", w2, c);
    } else {
      const at::Tensor& first = give("lokr_w2_a", "residual.w2_a");
      const at::Tensor& second = give("lokr_w2_b", "residual.w2_b");
      if (tucker) give("lokr_t2", "residual.t2");
      b = rank_of("lokr_w2_a", first, tucker ? 1 : 0);
      rank = rank_of("lokr_w2_b", second, 0);
      d = tucker ? rank_of("lokr_w2_b", second, 1) : columns("lokr_w2_b", second, c);
    }
    // A core has the kernel's positions, so that the columns beside it are channels.
    const bool fits = c * d == shape_.in || (!tucker && c * d == shape_.patch());
    if (a * b != shape_.out || !fits)
      throw bad(whole_1 ? "lokr_w1" : "lokr_w1_a",
                "and its partner make " + std::to_string(a * b) + "x" + std::to_string(c * d) +
                    ", the layer is " + std::to_string(shape_.out) + "x" +
                    std::to_string(shape_.in));
    const auto pair = [](std::int64_t m, std::int64_t n) {
      return std::to_string(m) + "x" + std::to_string(n);
    };
    const std::string form =
        ",out=" + pair(a, b) + ",in=" + pair(c, d) + (whole_1 ? ",w1=full" : ",w1=factored") +
        (whole_2 ? ",w2=full" : ",w2=factored") + (tucker ? ",tucker=yes" : "");
    reading_.method = lokr_scale(rank, form) + magnitude();
  }

  std::string lokr_scale(std::int64_t rank, const std::string& form) {
    if (rank > 0) {
      check_rank(has("lokr_w2_b") ? "lokr_w2_b" : "lokr_w1_b", rank);
      return ranked("lokr", rank, alpha(rank), form);
    }
    if (context_.config != nullptr) {
      const std::int64_t r = context_.config->rank(context_.path, 8);
      return ranked("lokr", r, alpha(r), form);
    }
    // LyCORIS gives alpha the rank's value when neither factor is of low rank.
    const double stored = has("alpha") ? scalar("alpha") : 1.0;
    constexpr double kMost = 9007199254740992.0;  // 2^53, what a method's rank may be
    const bool keeps = stored >= 1.0 && stored <= kMost && std::floor(stored) == stored;
    decisions_.insert("LoKr of two whole factors: scale 1, whatever alpha the file states");
    return ranked("lokr", keeps ? static_cast<std::int64_t>(stored) : 1, keeps ? stored : 1.0,
                  form);
  }

  /// d of a factor [rows, d(, kh, kw)], which may be flat.
  std::int64_t columns(const char* what, const at::Tensor& tensor, std::int64_t c) const {
    if (tensor.dim() < 2) throw bad(what, "has too few axes");
    const std::int64_t all = tensor.numel() / tensor.size(0), positions = shape_.positions();
    // A flat kernel is a kernel where its positions divide it: c (d kh kw) = (c d) kh kw.
    return all % positions == 0 && c * (all / positions) == shape_.in ? all / positions : all;
  }

  std::string over_patches(std::int64_t width) const {
    return width == shape_.patch() && shape_.positions() > 1 ? ",over=patches" : "";
  }

  /// The numbers of PEFT's OFT. OneTrainer's scaled OFT divides them while it computes.
  const at::Tensor& give_oft_numbers(std::int64_t block) {
    if (!has("oft_scaled") || scalar("oft_scaled") == 0.0) return give("oft_r", "transform.blocks");
    const at::Tensor& v = take("oft_r");
    const double divisor =
        2.0 * std::sqrt(static_cast<double>(std::max<std::int64_t>(2, block) - 1));
    give("transform.blocks", v.to(at::kFloat) / divisor);
    decisions_.insert("scaled OFT: its numbers are divided by 2 sqrt(block - 1)");
    return v;
  }

  void read_peft_oft() {
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

  std::string peft_cayley() {
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

  /// OneTrainer's is PEFT's with five terms, but it turns the weight of a convolution where PEFT
  /// turns the input: the transpose.
  std::string onetrainer_cayley() {
    decisions_.insert(
        "OFT on the input side, Cayley-Neumann series of five terms (OneTrainer; of convolutions "
        "the transpose)");
    return std::string(",cayley=neumann,terms=5,transpose=") + (shape_.convolution ? "no" : "yes");
  }

  /// "+diagonal(…)" for the row scales that OFT and BOFT files may have.
  std::string row_scale(const char* what, int transform) {
    if (!has(what)) return "";
    const at::Tensor& scale = give(what, "transform_" + std::to_string(transform) + ".scale");
    if (scale.numel() != shape_.out) throw bad(what, "does not have one number per output");
    return "+diagonal(side=output)";
  }

  void read_lycoris_oft() {
    const at::Tensor& blocks = give("oft_blocks", "transform.blocks");
    const bool butterfly = blocks.dim() == 4, has_blocks = butterfly || blocks.dim() == 3;
    if (!has_blocks || blocks.size(-1) != blocks.size(-2) ||
        blocks.size(-3) * blocks.size(-1) != shape_.out)
      throw bad("oft_blocks",
                "are not square blocks of " + std::to_string(shape_.out) + " outputs");
    const std::int64_t b = blocks.size(-1);
    double constraint = has("alpha") ? scalar("alpha") : 0.0;
    if (!(constraint >= 0.0)) throw bad("alpha", "is a constraint below zero");
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

  /// LyCORIS before 2.1.0.dev9 (February 2024) saved the rotations, R^t W0 for each block of rows,
  /// in place of the numbers that they are made from.
  void read_old_lycoris_oft() {
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

  void read_peft_boft() {
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

  void read_hra() {
    check_type("HRA");
    const at::Tensor& u = give("hra_u", "transform.u");
    if (u.dim() != 2 || u.size(0) != shape_.patch())
      throw bad("hra_u", "does not have one row per input");
    if ((u.to(at::kFloat).norm(2, 0) == 0).any().item<bool>())
      throw bad("hra_u", "has a vector of length zero, which reflects nothing");
    check_rank("hra_u", u.size(1));
    if (configured("apply_GS") && u.size(1) > u.size(0))
      throw bad("hra_u", "has more vectors than can be orthogonal to each other");
    reading_.method = "hra(rank=" + std::to_string(u.size(1)) + over_patches(u.size(0)) +
                      (configured("apply_GS") ? ",orthogonal=yes)" : ")");
  }

  void read_glora() {
    const at::Tensor& a1 = give("a1", "transform.a1");
    const std::int64_t rank = rank_of("a1", a1, 1);
    give("a2", "transform.a2");
    give("b1", "residual.up");
    give("b2", "residual.down");
    if (rank_of("b1", file_.tensors.at("b1"), 1) != rank)
      throw bad("b1", "has another rank than a1");
    const double of_alpha = alpha(rank);
    reading_.method =
        ranked("lowrank", rank, of_alpha) + "+" + ranked("lora", rank, of_alpha, ",init=glora");
  }

  void read_ia3() {
    const at::Tensor& scale = give("ia3", "transform.scale");
    bool input = false;
    if (context_.naming == Naming::peft) {
      check_type("IA3");
      input = context_.config != nullptr &&
              context_.config->selects("feedforward_modules", context_.path);
      const bool bias = !input && context_.layer->bias().defined();
      reading_.method = input  ? "diagonal(side=input)"
                        : bias ? "diagonal(side=output,bias=yes)"
                               : "diagonal(side=output)";
      if (bias) decisions_.insert("IA3 on the output scales the bias, too (PEFT)");
    } else {
      input = scalar("on_input") != 0.0;
      reading_.method = std::string("diagonal(form=offset,side=") + (input ? "input)" : "output)");
    }
    decisions_.insert(input ? "IA3 on the input" : "IA3 on the output");
    if (scale.numel() != (input ? shape_.in : shape_.out))
      throw bad("ia3", "does not have one number per channel");
  }

  void read_fourier() {
    check_type("FOURIERFT");
    const at::Tensor& spectrum = give("spectrum", "residual.spectrum");
    reading_.method = "fourierft(n=" + std::to_string(spectrum.numel()) +
                      ",scale=" + exact_number(context_.config->number("scaling", 150.0)) +
                      ",seed=" + std::to_string(context_.config->integer("random_loc_seed", 777)) +
                      ")";
  }

  void read_vera() {
    check_type("VERA");
    give("vera_b", "residual.b");
    const at::Tensor& d = give("vera_d", "residual.d");
    check_rank("vera_d", d.numel());
    reading_.method = "vera(rank=" + std::to_string(d.numel()) + ",seed=" +
                      std::to_string(context_.config->integer("projection_prng_key", 0)) + ")";
  }

  /// A layer that PEFT trained and saved whole, as it does with a new head: the difference from the
  /// model's own.
  void read_saved() {
    const bool whole = has("saved_weight");
    if (context_.config == nullptr || !context_.config->is_set("modules_to_save"))
      throw bad(whole ? "saved_weight" : "saved_bias",
                "is a whole layer's, but the configuration names no modules_to_save");
    const auto difference = [&](const char* what, const at::Tensor& own) {
      const at::Tensor& saved = take(what);
      const bool fits = own.defined() && saved.sizes() == own.sizes();
      if (!fits) throw bad(what, "is of another shape than the model's own");
      return saved.to(at::kFloat) - own.to(at::kFloat);
    };
    const nn::Layer& layer = *context_.layer;
    if (whole) {
      // Turned back where the checkpoint stores the weight as [in, out].
      give("residual.diff", layer.stored(difference("saved_weight", layer.stored(layer.weight()))));
      reading_.method = "diff";
    }
    if (has("saved_bias")) {
      give("bias.d", difference("saved_bias", layer.bias()));
      reading_.method += whole ? "+bias" : "bias";
    }
    decisions_.insert("modules_to_save: whole layers, read as their difference from the model's");
  }

  void read_difference() {
    const char* what = has("diff") ? "diff" : "set_weight";
    const at::Tensor& stored = file_.tensors.at(what);
    const at::Tensor& w0 = context_.layer->weight();
    if (stored.numel() != w0.numel()) throw bad(what, "has another size than the layer's weight");
    if (has("diff")) {
      give("diff", "residual.diff");
    } else {
      decisions_.insert("set_weight is the whole weight: its difference from the model's is taken");
      give("residual.diff",
           take("set_weight").to(at::kFloat).reshape(w0.sizes()) - w0.to(at::kCPU, at::kFloat));
    }
    reading_.method = "diff" + magnitude();
  }

  /// ComfyUI and LyCORIS keep a difference of the bias beside the tensors of every method.
  void read_bias() {
    if (!has("diff_b")) return;
    give("diff_b", "bias.d");
    reading_.method += reading_.method.empty() ? "bias" : "+bias";
  }

  const LayerTensors& file_;
  const ReadingContext& context_;
  std::set<std::string>& decisions_;
  LayerShape shape_;
  LayerReading reading_;
  std::set<std::string> used_;
};

}  // namespace

adapt::Method to_method(const std::string& text, const std::string& layer) {
  try {
    return adapt::parse_method(text);
  } catch (const Error& error) {
    throw Error(ErrorCode::unsupported, layer, "asks for what cannot be: " + error.message(),
                "the adapter is damaged, or of a kind that is not known here");
  }
}

LayerReading read_layer(const LayerTensors& file, const ReadingContext& context,
                        std::set<std::string>& decisions) {
  return Reader(file, context, decisions).read();
}

}  // namespace ringlet::formats
