// Adapters fitted to known weights.
#include "ringlet/adapt/fit/fit.h"

#include <cmath>

#include <ATen/ATen.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/fit/coordinates.h"
#include "ringlet/adapt/fit/fit_closed_form.h"
#include "ringlet/adapt/fit/fit_ring.h"
#include "ringlet/adapt/fit/lbfgs.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/parts/trm.h"
#include "ringlet/core/error.h"
#include "tests/expect_error.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::adapt {
namespace {

constexpr double kRounding = 2e-5;

std::shared_ptr<nn::Layer> linear(std::int64_t out, std::int64_t in,
                                  const std::string& name = "w") {
  return std::make_shared<nn::LinearLayer>(golden::weight(name, {out, in}),
                                           golden::uniform("bias", {out}));
}

std::shared_ptr<nn::Layer> convolution(std::int64_t out, std::int64_t in) {
  return std::make_shared<nn::Conv2dLayer>(golden::weight("conv", {out, in, 3, 3}),
                                           golden::uniform("bias", {out}),
                                           nn::Conv2dOptions{.stride = 1, .padding = 1});
}

std::shared_ptr<TransformResidual> adapter_of(const std::string& method, const nn::Layer& layer,
                                              std::uint64_t seed = 3) {
  FactorTable factors;
  return build_adapter(parse_method(method), layer, factors, Random(seed), "layer");
}

/// W0 plus a full-rank difference.
at::Tensor other_weight(const nn::Layer& layer, double size = 0.05) {
  return layer.weight() + size * golden::uniform("other", layer.weight().sizes().vec());
}

/// The weight of the method itself with disturbed parameters, which a fit should find again.
at::Tensor reachable_weight(const std::string& method, const nn::Layer& layer) {
  const at::NoGradGuard no_grad;
  const auto adapter = adapter_of(method, layer, 11);
  for (const auto& [name, tensor] : adapter->parameters())
    tensor.add_(golden::uniform("reach" + name, tensor.sizes().vec()), 0.1);
  return adapter->weight(layer.weight());
}

double measured_error(const TransformResidual& adapter, const nn::Layer& layer,
                      const at::Tensor& wanted) {
  const at::NoGradGuard no_grad;
  return ((adapter.weight(layer.weight()) - wanted).norm() / (wanted - layer.weight()).norm())
      .item<double>();
}

FitResult expect_fit(const std::string& method, const nn::Layer& layer, const at::Tensor& wanted,
                     double error, const FitOptions& options = {}) {
  const auto adapter = adapter_of(method, layer);
  const FitResult report = fit(*adapter, layer, wanted, options);
  EXPECT_LE(report.relative_error, error) << method;
  EXPECT_NEAR(report.relative_error, measured_error(*adapter, layer, wanted), 1e-5) << method;
  return report;
}

/// Square root of what the singular values beyond a rank hold.
double tail(const at::Tensor& difference, std::int64_t rank) {
  const at::Tensor squares = at::linalg_svdvals(difference.flatten(1)).square();
  return (squares.slice(0, rank).sum() / squares.sum()).sqrt().item<double>();
}

TEST(Fit, LowRankIsTheBestApproximation) {
  for (const auto& layer : {linear(12, 10), linear(9, 20), convolution(6, 8)}) {
    const at::Tensor wanted = other_weight(*layer);
    for (const std::int64_t rank : {1, 3}) {
      const double best = tail(wanted - layer->weight(), rank);
      for (const char* more : {"", ",alpha=1", ",scaling=sqrt", ",init=gaussian"}) {
        const FitResult report =
            expect_fit("lora(rank=" + std::to_string(rank) + more + ")", *layer, wanted, 1.0);
        EXPECT_NEAR(report.relative_error, best, 1e-5) << more;
        EXPECT_TRUE(report.closed_form && report.converged);
        EXPECT_EQ(report.steps, 0);
      }
    }
    expect_fit("lora(rank=200)", *layer, wanted, kRounding);  // more than the matrix has
  }
}

TEST(Fit, ClosedFormsFindTheirOwnWeights) {
  for (const auto& layer : {linear(12, 8), linear(18, 16), convolution(8, 12)})
    for (const char* method :
         {"lora(rank=2)", "lora(rank=2,init=pissa)", "tt(rank=3)", "diagonal", "diff", "magnitude",
          "diagonal(side=output)", "diagonal(side=output,form=offset)", "magnitude(axis=input)",
          "diff+trm(rank=2)", "oft(block=4)", "oft(block=2,side=output,share=yes)",
          "oft(block=4,form=matrix,transpose=yes)", "oft(block=2,side=output,transpose=yes)"}) {
      const FitResult report =
          expect_fit(method, *layer, reachable_weight(method, *layer), 5 * kRounding);
      EXPECT_TRUE(report.closed_form && report.converged) << method;
    }
}

// The chain makes more numbers than the weight has, and what the others are is free.
TEST(Fit, PaddedChainsAreSearched) {
  const auto layer = linear(20, 7);
  for (const auto& [method, error] :
       {std::pair{"tt(rank=3)", 0.02}, std::pair{"tr(rank=2)", 0.1}}) {
    const FitResult report =
        expect_fit(method, *layer, reachable_weight(method, *layer), error, {.tolerance = 1e-5});
    EXPECT_FALSE(report.closed_form) << method;
  }
}

TEST(Fit, SearchesFindTheirOwnWeights) {
  for (const char* method :
       {"oft(block=4,cayley=neumann)", "oft(block=4,constraint=0.05)", "boft(block=4,factors=2)",
        "hra(rank=2)", "fourierft(n=40)", "vera(rank=6)", "lowrank(rank=2)", "trm(rank=1)",
        "trm(rank=1)+lora(rank=2)", "oft(block=4)+lora(rank=2)", "diagonal+lora(rank=2)"}) {
    const auto layer = linear(12, 16);
    const FitResult report = expect_fit(method, *layer, reachable_weight(method, *layer), 0.02,
                                        {.steps = 2000, .tolerance = 1e-5});
    EXPECT_FALSE(report.closed_form) << method;
    EXPECT_GT(report.steps, 0) << method;
  }
}

TEST(Fit, ATensorRingFindsItsOwnWeight) {
  for (const auto& layer : {linear(12, 16), convolution(6, 8)}) {
    const FitResult report = expect_fit(
        "tr(rank=2)", *layer, reachable_weight("tr(rank=2)", *layer), 1e-2, {.tolerance = 1e-5});
    EXPECT_FALSE(report.closed_form);
  }
}

TEST(Fit, ATransformBesideALowRankIsNeverWorseThanTheLowRank) {
  for (const auto& layer : {linear(16, 12), convolution(6, 8)}) {
    const at::Tensor wanted = other_weight(*layer);
    const double alone = tail(wanted - layer->weight(), 2);
    for (const char* method : {"trm(rank=2)+lora(rank=2)", "trm(rank=2,init=paper)+lora(rank=2)",
                               "oft(block=2)+lora(rank=2)", "lora(rank=2)+magnitude",
                               "lora(rank=2)+magnitude(axis=input)",
                               "diagonal(side=output)+lora(rank=2)", "glora(rank=2)"})
      EXPECT_LT(expect_fit(method, *layer, wanted, alone).relative_error, alone) << method;
  }
}

// The paper's start keeps all slices of a core equal; the fit has to leave it to be of use.
TEST(Fit, TheRankOfARingCounts) {
  const auto layer = linear(16, 16);
  const at::Tensor wanted = other_weight(*layer);
  const double one = expect_fit("trm(rank=1)", *layer, wanted, 1.0).relative_error;
  for (const char* method : {"trm(rank=2)", "trm(rank=2,init=paper)"})
    EXPECT_LT(expect_fit(method, *layer, wanted, 1.0).relative_error, 0.95 * one) << method;
}

// Residuals of several factors, and a free length of each row beside a low rank.
TEST(Fit, FactorsInTurnsFindTheirOwnWeights) {
  for (const auto& layer : {linear(12, 16), convolution(8, 12)})
    for (const char* method :
         {"lokr(rank=2,factor=4)", "lokr(rank=1,factor=2,both=yes)", "lokr(rank=9,factor=2)",
          "lora(rank=2)+magnitude", "lora(rank=2)+magnitude(axis=input)",
          "lora(rank=2,init=pissa)+magnitude"}) {
      const FitResult report = expect_fit(method, *layer, reachable_weight(method, *layer), 0.02,
                                          {.steps = 2000, .tolerance = 1e-5});
      EXPECT_TRUE(report.converged) << method;
      EXPECT_GT(report.steps, 0) << method;
    }
}

// Products of two low ranks have many stationary points: a search alone ends at 0.38 and 0.57 here.
TEST(Fit, TurnsBringAHadamardProductNearer) {
  for (const auto& layer : {linear(12, 16), convolution(8, 12)})
    expect_fit("loha(rank=2)", *layer, reachable_weight("loha(rank=2)", *layer), 0.12,
               {.steps = 2000, .tolerance = 1e-5});
}

// The rotation nearest to what is wanted, not only one that can be reached: no other one is nearer.
TEST(Fit, RotationsAreTheNearest) {
  const auto layer = linear(12, 16);
  const at::Tensor wanted = other_weight(*layer, 0.5);
  for (const char* method :
       {"oft(block=4)", "oft(block=4,side=output)", "oft(block=8,share=yes)"}) {
    const auto adapter = adapter_of(method, *layer);
    const double error = fit(*adapter, *layer, wanted).relative_error;
    const at::NoGradGuard no_grad;
    const at::Tensor blocks = adapter->parameters().front().second, best = blocks.clone();
    for (const char* seed : {"a", "b", "c", "d", "e", "f"}) {
      blocks.copy_(best + 0.02 * golden::uniform(seed, best.sizes().vec()));
      EXPECT_GT(measured_error(*adapter, *layer, wanted), error) << method;
    }
  }
}

TEST(Fit, ASweepOverARingMatrixLeavesTheGapThatItSays) {
  const at::NoGradGuard no_grad;
  const auto layer = linear(10, 24);
  const auto adapter = adapter_of("trm(rank=2)", *layer);
  const auto& ring = dynamic_cast<const TensorRingMatrix&>(*adapter->parts().transforms.front());
  const at::Tensor wanted = other_weight(*layer, 0.3);
  RingMatrixRows rows(ring.parameters(), layer->weight());
  ASSERT_FALSE(rows.padded());
  double before = 1e9;
  for (int i = 0; i < 4; ++i) {
    const at::Tensor gap = wanted - adapter->weight(layer->weight());
    const at::Tensor after = rows.sweep(gap);
    EXPECT_LT((after - (wanted - adapter->weight(layer->weight()))).abs().max().item<double>(),
              1e-5);
    EXPECT_LT(after.norm().item<double>(), before);
    before = after.norm().item<double>();
  }
  EXPECT_TRUE(RingMatrixRows(ring.parameters(), at::ones({3, 23})).padded());
}

TEST(Fit, CoordinatesMakeTheErrorOfASingleCoreRound) {
  const auto layer = linear(30, 24);
  const auto adapter = adapter_of("trm(rank=2)", *layer);
  const Parameters cores = adapter->parts().transforms.front()->parameters();
  std::vector<at::Tensor> grams = RingMatrixRows(cores, layer->weight()).grams(), tensors;
  for (const auto& [name, core] : cores) tensors.push_back(core);
  const Coordinates coordinates(tensors, grams);
  const at::Tensor y = coordinates.point();
  const at::Tensor w = adapter->weight(layer->weight()).detach();
  coordinates.move_to(y);
  EXPECT_LT((adapter->weight(layer->weight()) - w).abs().max().item<double>(), 1e-4);
  // The gradient is that of y.
  const at::Tensor direction = golden::uniform("direction", y.sizes().vec()).to(at::kDouble);
  const at::Tensor along = golden::uniform("along", w.sizes().vec());
  (adapter->weight(layer->weight()) * along).sum().backward();
  const double slope = coordinates.take_gradient().dot(direction).item<double>();
  constexpr double kStep = 1e-2;
  const auto value = [&](double step) {
    coordinates.move_to(y + step * direction);
    return (adapter->weight(layer->weight()) * along).sum().item<double>();
  };
  const double difference = (value(kStep) - value(-kStep)) / (2.0 * kStep);
  EXPECT_NEAR(slope, difference, 1e-2 * std::abs(slope));
  EXPECT_FALSE(tensors.front().grad().defined());
}

// Large matrices take products with a few columns; spectra that fall, that are flat, and that end.
TEST(BestLowRank, OfAFewRanksIsAsNearAsTheWholeDecomposition) {
  const auto random = [](const char* name, std::int64_t rows, std::int64_t columns) {
    return golden::uniform(name, {rows, columns});
  };
  const at::Tensor fall = at::exp(-0.2 * at::arange(30));
  const at::Tensor falling = at::matmul(random("a", 250, 30) * fall, random("b", 30, 300));
  const at::Tensor flat = random("c", 250, 300);
  const at::Tensor exact = at::matmul(random("d", 250, 2), random("e", 2, 300));
  for (const at::Tensor& wide : {falling + 0.01 * flat, flat, exact, at::zeros_like(flat)})
    for (const at::Tensor& matrix : {wide, wide.t().contiguous(), wide.to(at::kDouble)})
      for (const std::int64_t rank : {1, 2}) {
        const LowRankProduct found = best_low_rank(matrix, rank);
        ASSERT_EQ(found.left.sizes(), (at::IntArrayRef{matrix.size(0), rank}));
        ASSERT_EQ(found.right.sizes(), (at::IntArrayRef{rank, matrix.size(1)}));
        const at::Tensor values = at::linalg_svdvals(matrix.to(at::kDouble)).square();
        const double total = values.sum().item<double>();
        const double least = values.narrow(0, rank, values.size(0) - rank).sum().item<double>();
        const double missed = (matrix - at::matmul(found.left, found.right))
                                  .to(at::kDouble)
                                  .square()
                                  .sum()
                                  .item<double>();
        EXPECT_LE(missed, least * (1.0 + 2e-6) + 1e-11 * total);
        // Shared between both.
        EXPECT_NEAR(found.left.norm().item<double>(), found.right.norm().item<double>(),
                    1e-4 * std::sqrt(total) + 1e-12);
      }
}

TEST(Fit, ALowRankIsTrackedAsTheSingularValuesHaveIt) {
  at::Tensor matrix = golden::uniform("tracked", {90, 70});
  matrix = matrix + 3.0 * at::matmul(golden::uniform("l", {90, 6}), golden::uniform("r", {6, 70}));
  LowRankTracker tracker(3, 1);
  for (int i = 0; i < 5; ++i) {
    const LowRankProduct best = best_low_rank(matrix, 3);
    const double least = (matrix - at::matmul(best.left, best.right)).norm().item<double>();
    const double tracked = (matrix - tracker.approximate(matrix)).norm().item<double>();
    EXPECT_NEAR(tracked / least, 1.0, 1e-3);
    matrix = matrix + 0.02 * golden::uniform("step" + std::to_string(i), {90, 70});
  }
  // Fewer ranks than it keeps track of.
  const at::Tensor low = at::matmul(golden::uniform("a", {90, 2}), golden::uniform("b", {2, 70}));
  EXPECT_LT((LowRankTracker(3, 1).approximate(low) - low).norm().item<double>(),
            1e-4 * low.norm().item<double>());
}

class FitEveryMethod : public testing::TestWithParam<std::string> {};

TEST_P(FitEveryMethod, IsNoWorseThanTheStart) {
  const TinyModel model;
  const AdapterSet set = model.adapters(GetParam());
  for (const AdapterSet::Entry& entry : set.entries()) {
    const at::Tensor wanted = other_weight(*entry.target.layer);
    entry.adapter->strength = 0.5;
    const FitResult report =
        fit(*entry.adapter, *entry.target.layer, wanted, {.steps = 20}, entry.target.layer->bias());
    EXPECT_EQ(entry.adapter->strength, 0.5);
    EXPECT_LE(report.relative_error, 1.0 + 1e-6) << entry.target.full_name();
    EXPECT_LE(report.steps, 20);
    std::int64_t count = 0;
    for (const auto& [name, tensor] : entry.adapter->parameters()) {
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
      EXPECT_TRUE(tensor.requires_grad()) << name;
      EXPECT_FALSE(tensor.grad().defined()) << name;
      count += tensor.numel();
    }
    EXPECT_EQ(report.parameters, count);
    EXPECT_TRUE(GetParam() == "bias" || report.relative_error < 1.0) << entry.target.full_name();
  }
}

INSTANTIATE_TEST_SUITE_P(All, FitEveryMethod, testing::ValuesIn(all_methods()), method_name);

TEST(Fit, IsDeterministic) {
  const auto layer = linear(12, 16);
  const at::Tensor wanted = other_weight(*layer);
  for (const char* method : {"trm(rank=2)+lora(rank=1)", "trm(rank=2)+tr(rank=2)"}) {
    const auto a = adapter_of(method, *layer), b = adapter_of(method, *layer);
    fit(*a, *layer, wanted, {.steps = 30});
    fit(*b, *layer, wanted, {.steps = 30});
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(a->weight(layer->weight()), b->weight(layer->weight()))) << method;
  }
}

TEST(Fit, HalfPrecisionWeights) {
  const nn::LinearLayer layer(golden::weight("w", {12, 10}).to(at::kHalf), {});
  const at::Tensor wanted = other_weight(layer).to(at::kBFloat16);
  const auto adapter = adapter_of("diff", layer);
  EXPECT_LT(fit(*adapter, layer, wanted).relative_error, 1e-6);
}

TEST(Fit, TheBiasIsTakenOver) {
  const auto layer = linear(12, 10);
  const at::Tensor wanted = golden::uniform("wanted bias", {12});
  const auto adapter = adapter_of("lora(rank=1)+bias(scale=2)", *layer);
  fit(*adapter, *layer, other_weight(*layer), {}, wanted);
  const at::NoGradGuard no_grad;
  EXPECT_LT((adapter->bias(layer->bias()) - wanted).abs().max().item<double>(), 1e-6);
}

TEST(Fit, WrongInputIsExplained) {
  const auto layer = linear(12, 10);
  const auto adapter = adapter_of("lora(rank=1)", *layer);
  expect_error(ErrorCode::mismatch, "shape", [&] { fit(*adapter, *layer, at::zeros({12, 11})); });
  expect_error(ErrorCode::invalid_argument, "equals the layer's weight",
               [&] { fit(*adapter, *layer, layer->weight().clone()); });
  expect_error(ErrorCode::non_finite, "NaN", [&] {
    fit(*adapter, *layer, at::full({12, 10}, NAN));
  });
}

TEST(Fit, RankForError) {
  const at::Tensor difference = golden::uniform("d", {12, 10});
  for (std::int64_t rank = 1; rank < 10; ++rank) {
    EXPECT_EQ(rank_for_error(difference, tail(difference, rank) + 1e-4), rank);
    EXPECT_EQ(rank_for_error(difference, tail(difference, rank) - 1e-4), rank + 1);
  }
  EXPECT_EQ(rank_for_error(difference, 0.999), 1);
  EXPECT_EQ(rank_for_error(golden::uniform("k", {4, 2, 3, 3}), 1e-9), 4);
}

TEST(Lbfgs, FindsTheMinimumOfRosenbrocksValley) {
  at::Tensor x = at::tensor({-1.2, 1.0}, at::kDouble);
  const Minimum minimum = minimise(
      [](const at::Tensor& at_point, at::Tensor& gradient) {
        const double a = at_point[0].item<double>(), b = at_point[1].item<double>();
        gradient = at::tensor({-400.0 * a * (b - a * a) - 2.0 * (1.0 - a), 200.0 * (b - a * a)},
                              at::kDouble);
        return 100.0 * (b - a * a) * (b - a * a) + (1.0 - a) * (1.0 - a);
      },
      x, {.steps = 200, .tolerance = 0.0, .small = 1e-14});
  EXPECT_TRUE(minimum.converged);
  EXPECT_LT(minimum.steps, 60);
  EXPECT_LT((x - 1.0).abs().max().item<double>(), 1e-5);
}

TEST(Lbfgs, StopsWhereNothingFallsAnyMore) {
  at::Tensor x = at::zeros({3}, at::kDouble);
  const auto flat = [](const at::Tensor& at_point, at::Tensor& gradient) {
    gradient = at::zeros_like(at_point);
    return 1.0;
  };
  EXPECT_TRUE(minimise(flat, x, {}).converged);
  const auto wrong = [](const at::Tensor& at_point, at::Tensor& gradient) {
    gradient = at::ones_like(at_point);  // of another function
    return 1.0;
  };
  const Minimum minimum = minimise(wrong, x, {});
  EXPECT_TRUE(minimum.converged);
  EXPECT_EQ(minimum.steps, 0);
  EXPECT_TRUE(at::equal(x, at::zeros({3}, at::kDouble)));
}

}  // namespace
}  // namespace ringlet::adapt
