// A new part adds its include and its row.
#include "ringlet/adapt/registry.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/zeros.h>

#include "ringlet/adapt/parts/boft.h"
#include "ringlet/adapt/parts/diagonal.h"
#include "ringlet/adapt/parts/difference.h"
#include "ringlet/adapt/parts/foura.h"
#include "ringlet/adapt/parts/fourier.h"
#include "ringlet/adapt/parts/hadamard.h"
#include "ringlet/adapt/parts/householder.h"
#include "ringlet/adapt/parts/kronecker.h"
#include "ringlet/adapt/parts/low_rank.h"
#include "ringlet/adapt/parts/low_rank_transform.h"
#include "ringlet/adapt/parts/magnitude.h"
#include "ringlet/adapt/parts/oft.h"
#include "ringlet/adapt/parts/tensor_train.h"
#include "ringlet/adapt/parts/tr.h"
#include "ringlet/adapt/parts/trm.h"
#include "ringlet/adapt/parts/vera.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::adapt {
namespace {

using Kind = OptionKind;

OptionEntry rank_option(std::int64_t fallback) {
  return {"rank", Kind::positive_integer, fallback, {}, {}, true};
}
OptionEntry alpha_option() { return {"alpha", Kind::number, 0.0, "rank", {}, true}; }
OptionEntry switch_option(const char* name) { return {name, Kind::word, "no", {}, {"no", "yes"}}; }
OptionEntry word_option(const char* name, std::vector<std::string> words) {
  std::string first = words.front();
  return {name, Kind::word, std::move(first), {}, std::move(words)};
}
OptionEntry side_option() { return word_option("side", {"input", "output"}); }
/// What a transform of a convolution mixes: channels, or all numbers of a patch (PEFT).
OptionEntry over_option() { return word_option("over", {"channels", "patches"}); }

std::int64_t sum(const Factors& factors) {
  std::int64_t total = 0;
  for (const std::int64_t factor : factors) total += factor;
  return total;
}

Side side_of(const PartSpec& spec) {
  return spec.word("side") == "output" ? Side::output : Side::input;
}

double scale_of(const PartSpec& spec) { return spec.number("alpha") / spec.number("rank"); }

PartEntry trm_entry() {
  return {"trm",
          PartKind::transform,
          {rank_option(2), {"init", Kind::word, "asymmetric", {}, {"asymmetric", "paper"}, true}},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            const TrmStart start =
                spec.word("init") == "paper" ? TrmStart::paper : TrmStart::asymmetric;
            parts.transforms.push_back(std::make_unique<TensorRingMatrix>(
                context.shape.in, context.factors.at(context.shape.in), spec.integer("rank"), start,
                context.random));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable& factors) {
            const std::int64_t rank = spec.integer("rank");
            return sum_of_squares(factors.at(shape.in)) * rank * rank;
          }};
}

PartEntry diagonal_entry() {
  return {"diagonal",
          PartKind::transform,
          {side_option(), word_option("form", {"factor", "offset"}), switch_option("bias")},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.transforms.push_back(
                std::make_unique<Diagonal>(transform_width(spec, context.shape), side_of(spec),
                                           spec.word("form") == "offset", spec.yes("bias")));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return transform_width(spec, shape);
          }};
}

/// The size of a block: the wanted one or that of so many blocks, where they divide the channels,
/// else the nearest that does (PEFT's rule).
std::int64_t oft_block(const PartSpec& spec, std::int64_t width) {
  const std::int64_t blocks = spec.integer("blocks");
  return blocks > 0 ? width / nearest_divisor(width, blocks)
                    : nearest_divisor(width, spec.integer("block"));
}

PartEntry oft_entry() {
  return {"oft",
          PartKind::transform,
          {{"block", Kind::positive_integer, 32, {}, {}, true},
           {"blocks", Kind::whole, 0},
           side_option(),
           over_option(),
           word_option("form", {"triangle", "matrix"}),
           word_option("cayley", {"exact", "neumann"}),
           {"terms", Kind::positive_integer, 5},
           switch_option("share"),
           switch_option("transpose"),
           {"constraint", Kind::non_negative, 0.0},
           word_option("constrain", {"block", "all"})},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            const std::int64_t width = transform_width(spec, context.shape);
            OftOptions options;
            options.block = oft_block(spec, width);
            options.side = side_of(spec);
            options.triangle = spec.word("form") == "triangle";
            options.neumann = spec.word("cayley") == "neumann" ? spec.integer("terms") : 0;
            options.share = spec.yes("share");
            options.transpose = spec.yes("transpose");
            options.constraint = spec.number("constraint");
            options.constrain_all = spec.word("constrain") == "all";
            parts.transforms.push_back(std::make_unique<Oft>(width, options));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            const std::int64_t width = transform_width(spec, shape), b = oft_block(spec, width);
            const std::int64_t count = spec.yes("share") ? 1 : width / b;
            return count * (spec.word("form") == "triangle" ? b * (b - 1) / 2 : b * b);
          }};
}

PartEntry boft_entry() {
  return {"boft",
          PartKind::transform,
          {{"block", Kind::positive_integer, 4, {}, {}, true},
           {"factors", Kind::positive_integer, 2, {}, {}, true},
           side_option(),
           over_option(),
           word_option("pairs", {"halves", "interleaved"}),
           word_option("skew", {"half", "full"}),
           {"constraint", Kind::non_negative, 0.0}},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            BoftOptions options;
            options.block = spec.integer("block");
            options.factors = spec.integer("factors");
            options.side = side_of(spec);
            options.interleaved = spec.word("pairs") == "interleaved";
            options.half = spec.word("skew") == "half";
            options.constraint = spec.number("constraint");
            parts.transforms.push_back(
                std::make_unique<Boft>(transform_width(spec, context.shape), options));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return spec.integer("factors") * transform_width(spec, shape) * spec.integer("block");
          }};
}

PartEntry hra_entry() {
  return {"hra",
          PartKind::transform,
          {rank_option(8), over_option(), switch_option("orthogonal")},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.transforms.push_back(std::make_unique<Householder>(
                transform_width(spec, context.shape), spec.integer("rank"), spec.yes("orthogonal"),
                !context.load, context.random));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return transform_width(spec, shape) * spec.integer("rank");
          }};
}

PartEntry lowrank_entry() {
  return {"lowrank",
          PartKind::transform,
          {rank_option(4), alpha_option()},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.transforms.push_back(std::make_unique<LowRankTransform>(
                context.shape.in, spec.integer("rank"), scale_of(spec), context.random));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return 2 * spec.integer("rank") * shape.in;
          }};
}

PartEntry tr_entry() {
  return {"tr",
          PartKind::residual,
          {rank_option(6), word_option("init", {"kaiming", "paper"})},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            const TensorRingStart start =
                spec.word("init") == "paper" ? TensorRingStart::paper : TensorRingStart::kaiming;
            parts.residual = std::make_unique<TensorRing>(
                context.shape, context.factors.at(context.shape.out),
                context.factors.at(context.shape.in), spec.integer("rank"), start, context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable& factors) {
            const std::int64_t rank = spec.integer("rank");
            const std::int64_t positions = shape.positions() > 1 ? shape.positions() : 0;
            return (sum(factors.at(shape.out)) + sum(factors.at(shape.in)) + positions) * rank *
                   rank;
          }};
}

PartEntry tt_entry() {
  return {"tt",
          PartKind::residual,
          {rank_option(8)},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.residual = std::make_unique<TensorTrain>(
                context.shape, context.factors.at(context.shape.out),
                context.factors.at(context.shape.in), spec.integer("rank"), context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable& factors) {
            const std::int64_t rank = spec.integer("rank");
            const Factors &out = factors.at(shape.out), &in = factors.at(shape.in);
            const std::int64_t positions = shape.positions() > 1 ? shape.positions() : 0;
            return (sum(out) - out.front() + sum(in) - in.back() + positions) * rank * rank +
                   (out.front() + in.back()) * rank;
          }};
}

LowRankStart low_rank_start(const std::string& word) {
  if (word == "gaussian") return LowRankStart::gaussian;
  if (word == "orthogonal") return LowRankStart::orthogonal;
  if (word == "pissa") return LowRankStart::pissa;
  if (word == "olora") return LowRankStart::olora;
  if (word == "glora") return LowRankStart::glora;
  return LowRankStart::kaiming;
}

PartEntry lora_entry() {
  return {"lora",
          PartKind::residual,
          {rank_option(4), alpha_option(),
           word_option("init", {"kaiming", "gaussian", "orthogonal", "pissa", "olora", "glora"}),
           word_option("scaling", {"rank", "sqrt"}), switch_option("tucker")},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            LowRankOptions options;
            options.rank = spec.integer("rank");
            options.scale = spec.word("scaling") == "sqrt"
                                ? spec.number("alpha") / std::sqrt(spec.number("rank"))
                                : scale_of(spec);
            options.start = low_rank_start(spec.word("init"));
            options.tucker = spec.yes("tucker") && context.shape.positions() > 1;
            options.load = context.load;
            parts.residual =
                std::make_unique<LowRank>(context.layer.weight(), options, context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            const std::int64_t rank = spec.integer("rank");
            if (spec.yes("tucker") && shape.positions() > 1)
              return rank * (shape.in + shape.out + rank * shape.positions());
            return rank * (shape.patch() + shape.out);
          }};
}

PartEntry loha_entry() {
  return {"loha",
          PartKind::residual,
          {rank_option(4), alpha_option(), switch_option("tucker")},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            const bool tucker = spec.yes("tucker") && context.shape.positions() > 1;
            parts.residual = std::make_unique<Hadamard>(context.shape, spec.integer("rank"),
                                                        scale_of(spec), tucker, context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            const std::int64_t rank = spec.integer("rank");
            if (spec.yes("tucker") && shape.positions() > 1)
              return 2 * rank * (shape.in + shape.out + rank * shape.positions());
            return 2 * rank * (shape.patch() + shape.out);
          }};
}

KroneckerOptions lokr_options(const PartSpec& spec, const LayerShape& shape) {
  KroneckerOptions options;
  options.rank = spec.integer("rank");
  options.alpha = spec.number("alpha");
  const auto pair = [&](const char* key, std::int64_t n) {
    const Factors& factors = spec.factors(key);
    if (factors.empty()) return Kronecker::split(n, spec.integer("factor"));
    if (factors.size() != 2)
      throw Error(ErrorCode::invalid_argument, "lokr",
                  std::string(key) + "=" + to_string(factors) + " is not a pair");
    return std::pair{factors[0], factors[1]};
  };
  options.out = pair("out", shape.out);
  options.in = pair("in", shape.in);
  const auto half = [](std::int64_t first, std::int64_t second) {
    return static_cast<double>(std::max(first, second)) / 2.0;
  };
  const double rank = spec.number("rank");
  const auto factored = [&](const char* key, bool automatic) {
    return spec.word(key) == "auto" ? automatic : spec.word(key) == "factored";
  };
  options.factored_1 =
      factored("w1", spec.yes("both") && rank < half(options.out.first, options.in.first));
  options.factored_2 = factored("w2", rank < half(options.out.second, options.in.second));
  options.tucker = options.factored_2 && spec.yes("tucker") && shape.positions() > 1;
  // Whole factors only keep the rank, which LyCORIS's files set to 10000 and more.
  if ((options.factored_1 || options.factored_2) && options.rank > kLargestSize)
    throw Error(ErrorCode::invalid_argument, "lokr",
                "rank=" + std::to_string(options.rank) + " is too large for low-rank factors",
                "choose at most " + std::to_string(kLargestSize));
  return options;
}

PartEntry lokr_entry() {
  return {"lokr",
          PartKind::residual,
          {{"rank", Kind::count, 4, {}, {}, true},
           alpha_option(),
           {"factor", Kind::integer, -1},
           {"out", Kind::split, Factors()},
           {"in", Kind::split, Factors()},
           word_option("w1", {"auto", "full", "factored"}),
           word_option("w2", {"auto", "full", "factored"}),
           switch_option("both"),
           switch_option("tucker")},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.residual = std::make_unique<Kronecker>(
                context.shape, lokr_options(spec, context.shape), context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            const KroneckerOptions options = lokr_options(spec, shape);
            const auto [a, b] = options.out;
            const auto [c, d] = options.in;
            const std::int64_t r = options.rank;
            const std::int64_t positions = c * d == shape.in ? shape.positions() : 1;
            const std::int64_t first = options.factored_1 ? r * (a + c) : a * c;
            if (options.tucker) return first + r * (b + d + r * positions);
            return first + (options.factored_2 ? r * (b + d * positions) : b * d * positions);
          }};
}

PartEntry fourierft_entry() {
  return {"fourierft",
          PartKind::residual,
          {{"n", Kind::count, 1000, {}, {}, true},
           {"scale", Kind::number, 150.0},
           {"seed", Kind::whole, 777}},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.residual =
                std::make_unique<Fourier>(context.shape, spec.integer("n"), spec.number("scale"),
                                          static_cast<std::uint64_t>(spec.integer("seed")));
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return std::min(spec.integer("n"), shape.out * shape.patch());
          }};
}

PartEntry foura_entry() {
  return {"foura",
          PartKind::residual,
          {rank_option(4), alpha_option(), word_option("gate", {"yes", "no"})},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            parts.residual =
                std::make_unique<Foura>(context.shape, spec.integer("rank"), scale_of(spec),
                                        spec.yes("gate"), context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return spec.integer("rank") * (shape.patch() + shape.out + (spec.yes("gate") ? 1 : 0));
          }};
}

PartEntry vera_entry() {
  return {"vera",
          PartKind::residual,
          {rank_option(256), {"seed", Kind::whole, 0}, {"start", Kind::number, 0.1}},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            VeraOptions options;
            options.rank = spec.integer("rank");
            options.seed = static_cast<std::uint64_t>(spec.integer("seed"));
            options.start = spec.number("start");
            options.widest_in = context.widest.in;
            options.widest_out = context.widest.out;
            parts.residual = std::make_unique<Vera>(context.shape, options, context.shared);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return shape.out + spec.integer("rank");
          }};
}

PartEntry diff_entry() {
  return {"diff",
          PartKind::residual,
          {},
          [](const PartSpec&, const BuildContext& context, Parts& parts) {
            parts.residual = std::make_unique<Difference>(context.shape);
          },
          [](const PartSpec&, const LayerShape& shape, FactorTable&) {
            return shape.out * shape.patch();
          }};
}

PartEntry magnitude_entry() {
  return {"magnitude",
          PartKind::magnitude,
          {word_option("axis", {"output", "input"}), word_option("norm", {"detached", "exact"})},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            const Side side = spec.word("axis") == "input" ? Side::input : Side::output;
            parts.magnitude = std::make_unique<Magnitude>(context.layer.weight(), side,
                                                          spec.word("norm") == "detached");
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
            return spec.word("axis") == "input" ? shape.in : shape.out;
          }};
}

PartEntry bias_entry() {
  return {"bias",
          PartKind::bias,
          {{"scale", Kind::number, 1.0}},
          [](const PartSpec& spec, const BuildContext& context, Parts& parts) {
            if (!context.has_bias)
              throw Error(ErrorCode::unsupported, "bias", "needs a layer that has one",
                          "leave the bias out, or exclude the layer");
            parts.bias = at::zeros({context.shape.out}).set_requires_grad(true);
            parts.bias_scale = spec.number("scale");
          },
          [](const PartSpec&, const LayerShape& shape, FactorTable&) { return shape.out; }};
}

}  // namespace

std::int64_t transform_width(const PartSpec& part, const LayerShape& shape) {
  const auto says = [&](const char* option, const char* word) {
    return part.has(option) && part.word(option) == word;
  };
  if (says("side", "output")) return shape.out;
  return says("over", "patches") ? shape.patch() : shape.in;
}

const std::vector<PartEntry>& part_registry() {
  static const std::vector<PartEntry> registry = {
      trm_entry(),       diagonal_entry(),  oft_entry(),   boft_entry(), hra_entry(),
      lowrank_entry(),   tr_entry(),        lora_entry(),  tt_entry(),   loha_entry(),
      lokr_entry(),      fourierft_entry(), foura_entry(), vera_entry(), diff_entry(),
      magnitude_entry(), bias_entry()};
  return registry;
}

const OptionEntry* PartEntry::option(std::string_view option) const {
  const auto found = std::ranges::find(options, option, &OptionEntry::name);
  return found == options.end() ? nullptr : &*found;
}

const PartEntry* part_named(std::string_view name) {
  const auto found = std::ranges::find(part_registry(), name, &PartEntry::name);
  return found == part_registry().end() ? nullptr : &*found;
}

const PartEntry& find_part(const std::string& name) {
  if (const PartEntry* const entry = part_named(name)) return *entry;
  std::vector<std::string> names;
  for (const PartEntry& entry : part_registry()) names.push_back(entry.name);
  throw Error(ErrorCode::invalid_argument, Field("method"), "there is no part \"" + name + "\"",
              "known: " + join(names));
}

OptionValue default_value(const OptionEntry& option, const Options& options) {
  if (option.same_as.empty()) return option.fallback;
  const OptionValue& other = options.at(option.same_as);
  const auto* const whole = std::get_if<std::int64_t>(&other);
  const bool fraction = option.kind == Kind::number || option.kind == Kind::non_negative;
  return whole != nullptr && fraction ? OptionValue(static_cast<double>(*whole)) : other;
}

}  // namespace ringlet::adapt
