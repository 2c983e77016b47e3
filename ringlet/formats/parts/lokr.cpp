#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "ringlet/adapt/parts/kronecker.h"
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
      .held_by = {AdapterFormat::lycoris, AdapterFormat::peft},
      .recognises =
          [](const LayerTensors& layer) { return layer.has("lokr_w1") || layer.has("lokr_w1_a"); },
      .read = read_lokr,
      .write = write_lokr};
}

}  // namespace ringlet::formats
