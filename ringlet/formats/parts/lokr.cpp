#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include <ATen/ops/eye.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scalar_tensor.h>

#include "ringlet/adapt/parts/kronecker.h"
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

/// d of a factor [rows, d(, kh, kw)], which may be flat.
std::int64_t columns(const LayerReader& layer, const char* what, const at::Tensor& tensor,
                     std::int64_t c) {
  if (tensor.dim() < 2) throw layer.bad(what, "has too few axes");
  const std::int64_t all = tensor.numel() / tensor.size(0), positions = layer.shape().positions();
  // A flat kernel is a kernel where its positions divide it: c (d kh kw) = (c d) kh kw.
  return all % positions == 0 && c * (all / positions) == layer.shape().in ? all / positions : all;
}

/// The sizes of the factors [a, c] and [b, d].
struct Sizes {
  std::int64_t rank = 0;  ///< 0 where both are whole
  std::int64_t a = 0, b = 0, c = 0, d = 0;
};

void read_first(LayerReader& layer, Sizes& sizes) {
  if (layer.has("lokr_w1")) {
    const at::Tensor& w1 = layer.give("lokr_w1", "residual.w1");
    sizes.a = layer.rank_of("lokr_w1", w1, 0);
    sizes.c = layer.rank_of("lokr_w1", w1, 1);
    return;
  }
  sizes.a = layer.rank_of("lokr_w1_a", layer.give("lokr_w1_a", "residual.w1_a"), 0);
  const at::Tensor& second = layer.give("lokr_w1_b", "residual.w1_b");
  sizes.rank = layer.rank_of("lokr_w1_b", second, 0);
  sizes.c = layer.rank_of("lokr_w1_b", second, 1);
}

void read_second(LayerReader& layer, Sizes& sizes) {
  const bool tucker = layer.has("lokr_t2");
  if (layer.has("lokr_w2")) {
    const at::Tensor& w2 = layer.give("lokr_w2", "residual.w2");
    sizes.b = layer.rank_of("lokr_w2", w2, 0);
    sizes.d = columns(layer, "lokr_w2", w2, sizes.c);
    return;
  }
  const at::Tensor& first = layer.give("lokr_w2_a", "residual.w2_a");
  const at::Tensor& second = layer.give("lokr_w2_b", "residual.w2_b");
  if (tucker) layer.give("lokr_t2", "residual.t2");
  sizes.b = layer.rank_of("lokr_w2_a", first, tucker ? 1 : 0);
  sizes.rank = layer.rank_of("lokr_w2_b", second, 0);
  sizes.d =
      tucker ? layer.rank_of("lokr_w2_b", second, 1) : columns(layer, "lokr_w2_b", second, sizes.c);
}

void add_scale(LayerReader& layer, std::int64_t rank, adapt::Options& options) {
  if (rank > 0) {
    layer.check_rank(layer.has("lokr_w2_b") ? "lokr_w2_b" : "lokr_w1_b", rank);
    options["rank"] = rank;
    options["alpha"] = layer.alpha(rank);
    return;
  }
  if (const PeftConfig* const config = layer.context().config) {
    const std::int64_t stated = config->rank(layer.context().path, 8);
    options["rank"] = stated;
    options["alpha"] = layer.alpha(stated);
    return;
  }
  // LyCORIS gives alpha the rank's value when neither factor is of low rank.
  const double stored = layer.has("alpha") ? layer.scalar("alpha") : 1.0;
  constexpr double kMost = 9007199254740992.0;  // 2^53, what a method's rank may be
  const bool keeps = stored >= 1.0 && stored <= kMost && std::floor(stored) == stored;
  layer.decide("LoKr of two whole factors: scale 1, whatever alpha the file states");
  options["rank"] = keeps ? static_cast<std::int64_t>(stored) : 1;
  options["alpha"] = keeps ? stored : 1.0;
}

void read_lokr(LayerReader& layer) {
  layer.check_type("LOKR");
  const adapt::LayerShape& shape = layer.shape();
  const bool whole_1 = layer.has("lokr_w1"), whole_2 = layer.has("lokr_w2");
  const bool tucker = layer.has("lokr_t2");
  Sizes sizes;
  read_first(layer, sizes);
  read_second(layer, sizes);
  const auto [rank, a, b, c, d] = sizes;
  // A core has the kernel's positions, so that the columns beside it are channels.
  const bool fits = c * d == shape.in || (!tucker && c * d == shape.patch());
  if (a * b != shape.out || !fits)
    throw layer.bad(whole_1 ? "lokr_w1" : "lokr_w1_a",
                    "and its partner make " + std::to_string(a * b) + "x" + std::to_string(c * d) +
                        ", the layer is " + std::to_string(shape.out) + "x" +
                        std::to_string(shape.in));
  adapt::Options options = {{"out", adapt::Factors{a, b}},
                            {"in", adapt::Factors{c, d}},
                            {"w1", whole_1 ? "full" : "factored"},
                            {"w2", whole_2 ? "full" : "factored"},
                            {"tucker", tucker ? "yes" : "no"}};
  add_scale(layer, rank, options);
  layer.add("lokr", std::move(options));
  read_magnitude(layer);
}

/// PEFT makes the factors' sizes from its configuration, so that they must come out again: the
/// number that it makes them from.
std::optional<std::int64_t> peft_factor(const LayerWriter& layer) {
  const auto size = [&](const char* whole, const char* part, int axis) {
    const std::string first = std::string("residual.") + whole;
    return layer.numbers(layer.has(first) ? first : std::string("residual.") + part).size(axis);
  };
  const std::int64_t a = size("w1", "w1_a", 0), c = size("w1", "w1_b", 1);
  const auto split = [](std::int64_t n, std::int64_t f) {
    return f > 0 && n % f == 0 ? f : adapt::Kronecker::split(n, f).first;
  };
  for (std::int64_t f = -1; f <= std::max(a, c); ++f)
    if (f != 0 && split(layer.shape().out, f) == a && split(layer.shape().in, f) == c) return f;
  return std::nullopt;
}

void write_peft(LayerWriter& layer) {
  if (layer.has("residual.t2")) layer.config("use_effective_conv2d") = true;
  if (layer.has("residual.w1_a")) layer.config("decompose_both") = true;
  if (layer.magnitude() != nullptr) return layer.refuse("has no DoRA for LoKr");
  const std::optional<std::int64_t> factor = peft_factor(layer);
  if (!factor) return layer.refuse("cannot express LoKr factors of " + layer.method());
  layer.config("decompose_factor") = *factor;
  layer.put_scale(layer.residual()->number("alpha"), layer.residual()->number("rank"));
}

void write_lokr(LayerWriter& layer) {
  if (layer.bias() != nullptr) return layer.refuse_method();
  for (const char* name : {"w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"}) {
    const std::string parameter = std::string("residual.") + name;
    if (!layer.has(parameter)) continue;
    const at::Tensor& numbers = layer.numbers(parameter);
    // A low-rank kernel is stored flat.
    const bool flat = std::string_view(name) == "w2_b" && numbers.dim() == 4;
    layer.put(std::string("lokr_") + name, flat ? numbers.flatten(1) : numbers);
  }
  if (layer.peft()) return write_peft(layer);
  const double alpha = layer.residual()->number("alpha"), rank = layer.residual()->number("rank");
  const bool whole = layer.has("residual.w1") && layer.has("residual.w2");
  if (whole && alpha != rank)
    return layer.refuse("gives LoKr of two whole factors the scale 1, this one has another");
  layer.put_scale(alpha, rank);
  write_magnitude(layer);
}

/// A factor as it stands, or the first of its low rank: what has its rows.
std::string rows_name(const RowTaker& layer, const std::string& whole) {
  return layer.has(whole.c_str()) ? whole : whole + "_a";
}

at::Tensor whole_factor(RowTaker& layer, const std::string& whole) {
  if (layer.has(whole.c_str())) return layer.use(whole.c_str()).flatten(1).to(at::kFloat);
  return at::matmul(layer.use((whole + "_a").c_str()).to(at::kFloat),
                    layer.use((whole + "_b").c_str()).flatten(1).to(at::kFloat));
}

/// Rows that cut through the blocks of w1: what kron(w1, w2) is there has the form of a low rank,
/// (1 ⊗ left)(w1 ⊗ right) for w2 = left right, with the rows of w1 that it touches.
void take_cut_rows(RowTaker& layer, std::int64_t b) {
  const RowRange& range = layer.ranges().front();
  const std::int64_t first = range.begin / b, last = (range.begin + range.count - 1) / b;
  const bool whole_1 = layer.has("lokr_w1"), whole_2 = layer.has("lokr_w2");
  const at::Tensor w1 = whole_factor(layer, "lokr_w1").narrow(0, first, last + 1 - first);
  const at::Tensor left = layer.use(whole_2 ? "lokr_w2" : "lokr_w2_a").flatten(1).to(at::kFloat);
  const at::Tensor right =
      whole_2 ? at::eye(left.size(1)) : layer.use("lokr_w2_b").flatten(1).to(at::kFloat);
  // LyCORIS gives two whole factors the scale 1.
  if (layer.has("alpha")) layer.use("alpha");
  const double scale = whole_1 && whole_2
                           ? 1.0
                           : layer.scale(layer.use(whole_2 ? "lokr_w1_b" : "lokr_w2_b").size(0));
  const at::Tensor up = at::kron(at::eye(w1.size(0)), left)
                            .narrow(0, range.begin - first * b, range.count)
                            .contiguous();
  const at::Tensor down = at::kron(w1.contiguous(), right);
  const std::int64_t rank = up.size(1);
  const bool smaller = rank * (up.size(0) + down.size(1)) < up.size(0) * down.size(1);
  if (!smaller) return layer.put("diff", at::matmul(up, down) * scale);
  layer.put("up", up);
  layer.put("down", down);
  layer.put("alpha", at::scalar_tensor(scale * static_cast<double>(rank), at::kDouble));
}

/// Exact in LoKr's own form where the rows are whole blocks of w1, or within one of them.
void take_lokr_rows(RowTaker& layer) {
  const std::string first = rows_name(layer, "lokr_w1"), second = rows_name(layer, "lokr_w2");
  if (layer.has("lokr_t2") || layer.use(first.c_str()).dim() != 2)
    throw layer.impossible("LoKr with a core has no rows to divide");
  const std::int64_t a = layer.use(first.c_str()).size(0), b = layer.use(second.c_str()).size(0);
  if (a * b != layer.rows())
    throw layer.mismatch(first.c_str(), "and its partner make " + std::to_string(a * b) +
                                            " outputs, the model's layers have " +
                                            std::to_string(layer.rows()) + " together");
  const bool own_form = layer.is_aligned(b) || a == 1;
  if (!own_form && (layer.ranges().size() > 1 || layer.keeps_rank()))
    throw layer.impossible("its rows cut through the blocks of LoKr's factors");
  if (!own_form) return take_cut_rows(layer, b);
  for (const char* name :
       {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"})
    if (layer.has(name)) layer.keep(name);
  if (layer.is_aligned(b))
    layer.put(first.c_str(), layer.rows_of(first.c_str(), b));
  else
    layer.put(second.c_str(), layer.rows_of(second.c_str()));
}

/// The factors of pieces as LoKr's of the fused layer: whole names are "lokr_w1" and "lokr_w2".
class LokrJoiner {
 public:
  explicit LokrJoiner(RowJoiner& layer) : layer_(layer) {}

  bool is_shared(const std::string& whole) const {
    return layer_.equal(whole.c_str()) ||
           (layer_.equal((whole + "_a").c_str()) && layer_.equal((whole + "_b").c_str()));
  }
  /// The rows of all pieces one below the other.
  bool stack(const std::string& whole, std::int64_t per) const {
    const std::string columns = whole + "_b";
    const bool low = layer_.equal(columns.c_str());
    const std::string rows = low ? whole + "_a" : whole;
    if (!layer_.has(rows.c_str())) return false;
    layer_.put(rows.c_str(), layer_.stacked(rows.c_str(), per));
    if (low) layer_.put(columns.c_str(), layer_.first(columns.c_str()));
    return true;
  }
  std::int64_t outputs(const std::string& whole) const {
    return layer_.first((layer_.has(whole.c_str()) ? whole : whole + "_a").c_str()).size(0);
  }
  void copy(const std::string& whole) const {
    for (const std::string& name : {whole, whole + "_a", whole + "_b"})
      if (layer_.has(name.c_str())) layer_.put(name.c_str(), layer_.first(name.c_str()));
  }

 private:
  RowJoiner& layer_;
};

/// Exact where the pieces share the factor that does not hold their rows.
void join_lokr_rows(RowJoiner& layer) {
  const LokrJoiner factors(layer);
  const auto refuse = [&] {
    layer.refuse(
        "has LoKr of a layer that is several here only where these have the same second factor");
  };
  if (layer.any("lokr_t2") || !layer.equal_scale()) return refuse();
  const LayerWriting& one = *layer.adapted().front().first;
  layer.put_scale(one.alpha, one.rank);
  if (factors.is_shared("lokr_w2")) {
    const std::int64_t b = factors.outputs("lokr_w2");
    bool whole_blocks = layer.rows() % b == 0;
    for (const auto& entry : layer.adapted())
      whole_blocks = whole_blocks && entry.second.begin % b == 0;
    if (whole_blocks && factors.stack("lokr_w1", b)) return factors.copy("lokr_w2");
  }
  if (!factors.is_shared("lokr_w1") || factors.outputs("lokr_w1") != 1 ||
      !factors.stack("lokr_w2", 1))
    return refuse();
  factors.copy("lokr_w1");
}

}  // namespace

PartFormat lokr_format() {
  constexpr Spellings kBoth = kPeftNames | kShared;
  return {
      .part = "lokr",
      .shown = "LoKr",
      .endings = {{".lokr_w1", "lokr_w1", kBoth},
                  {".lokr_w1_a", "lokr_w1_a", kBoth},
                  {".lokr_w1_b", "lokr_w1_b", kBoth},
                  {".lokr_w2", "lokr_w2", kBoth},
                  {".lokr_w2_a", "lokr_w2_a", kBoth},
                  {".lokr_w2_b", "lokr_w2_b", kBoth},
                  {".lokr_t2", "lokr_t2", kBoth, Telling::little}},
      .peft = {.types = {"LOKR"},
               .fields = {"use_effective_conv2d", "decompose_both", "decompose_factor"},
               .of_conv1d = false},
      .held_by = {AdapterFormat::lycoris, AdapterFormat::peft, AdapterFormat::comfyui},
      .recognises =
          [](const LayerTensors& layer) { return layer.has("lokr_w1") || layer.has("lokr_w1_a"); },
      .read = read_lokr,
      .write = write_lokr,
      .take_rows = take_lokr_rows,
      .join_rows = join_lokr_rows};
}

}  // namespace ringlet::formats
