// The table of parts. A new method adds its include and its row.
#include "ringlet/adapt/low_rank.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/tr.h"
#include "ringlet/adapt/trm.h"

namespace ringlet::adapt {
namespace {

std::int64_t sum(const Factors& factors) {
  std::int64_t total = 0;
  for (const std::int64_t factor : factors) total += factor;
  return total;
}

std::int64_t sum_of_squares(const Factors& factors) {
  std::int64_t total = 0;
  for (const std::int64_t factor : factors) total += factor * factor;
  return total;
}

PartEntry trm_entry() {
  return {"trm",
          {{"rank", OptionKind::positive_integer, "2", ""},
           {"init", OptionKind::word, "asymmetric", "", {"asymmetric", "paper"}}},
          [](const PartSpec& spec, BuildContext& context) -> std::unique_ptr<Transform> {
            const TrmStart start =
                spec.options.at("init") == "paper" ? TrmStart::paper : TrmStart::asymmetric;
            return std::make_unique<TensorRingMatrix>(context.shape.in,
                                                      context.factors.at(context.shape.in),
                                                      spec.integer("rank"), start, context.random);
          },
          {},
          [](const PartSpec& spec, const LayerShape& shape, FactorTable& factors) {
            const std::int64_t rank = spec.integer("rank");
            return sum_of_squares(factors.at(shape.in)) * rank * rank;
          }};
}

PartEntry tr_entry() {
  return {"tr",
          {{"rank", OptionKind::positive_integer, "6", ""}},
          {},
          [](const PartSpec& spec, BuildContext& context) -> std::unique_ptr<Residual> {
            const Factors out = context.factors.at(context.shape.out);
            const Factors in = context.factors.at(context.shape.in);
            return std::make_unique<TensorRing>(context.shape, out, in, spec.integer("rank"),
                                                context.random);
          },
          [](const PartSpec& spec, const LayerShape& shape, FactorTable& factors) {
            const std::int64_t rank = spec.integer("rank");
            const std::int64_t positions = shape.positions() > 1 ? shape.positions() : 0;
            return (sum(factors.at(shape.out)) + sum(factors.at(shape.in)) + positions) * rank *
                   rank;
          }};
}

PartEntry lora_entry() {
  return {
      "lora",
      {{"rank", OptionKind::positive_integer, "4", ""}, {"alpha", OptionKind::number, "", "rank"}},
      {},
      [](const PartSpec& spec, BuildContext& context) -> std::unique_ptr<Residual> {
        return std::make_unique<LowRank>(context.shape, spec.integer("rank"), spec.number("alpha"),
                                         context.random);
      },
      [](const PartSpec& spec, const LayerShape& shape, FactorTable&) {
        return spec.integer("rank") * (shape.in * shape.positions() + shape.out);
      }};
}

}  // namespace

const std::vector<PartEntry>& part_registry() {
  static const std::vector<PartEntry> registry = {trm_entry(), tr_entry(), lora_entry()};
  return registry;
}

}  // namespace ringlet::adapt
