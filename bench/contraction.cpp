// Checks choose_contraction (ringlet/adapt/contraction.h) against measurements: every linear layer
// shape of Stable Diffusion 1.5's and XL's transformers, one training pass (forward, and backward
// for input and parameters) and one inference pass in each way, for 1 to 16384 tokens. One thread.
//
//     ringlet_bench_contraction [METHOD]      METHOD has a transform; default trm(rank=2)
//
// Prints a line per case and how often its pick is within 10 % of the best way.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/method_text.h"

namespace {

using namespace ringlet;

struct Shape {
  std::int64_t out, in;
};

constexpr std::array kShapes = {
    Shape{320, 320},  Shape{640, 640},   Shape{1280, 1280},   // q, k, v, out; projections
    Shape{320, 768},  Shape{640, 768},   Shape{1280, 768},    // text k, v (1.5)
    Shape{640, 2048}, Shape{1280, 2048},                      // text k, v (XL)
    Shape{2560, 320}, Shape{5120, 640},  Shape{10240, 1280},  // feed-forward, first
    Shape{320, 1280}, Shape{640, 2560},  Shape{1280, 5120},   // feed-forward, second
    Shape{1280, 320}, Shape{640, 1280},                       // projections of the time
};
constexpr std::array<std::int64_t, 7> kTokens = {1, 77, 64, 256, 1024, 4096, 16384};
constexpr std::array kContractions = {adapt::Contraction::through_input,
                                      adapt::Contraction::transform_folded};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// Seconds of each way, which take turns: many short passes, few long ones, and no more than
/// needed where one way is far behind.
template <class Pass>
std::array<double, 2> measure(const Pass& pass) {
  constexpr double kBudget = 0.6, kLong = 0.2, kFarBehind = 1.5;
  constexpr std::size_t kFewest = 3, kMost = 41;
  std::array<std::vector<double>, 2> seconds;
  const auto begin = Clock::now();
  for (std::size_t round = 0; round < kMost; ++round) {
    for (std::size_t i = 0; i < kContractions.size(); ++i) {
      const auto start = Clock::now();
      pass(kContractions[i]);
      seconds[i].push_back(seconds_since(start));
    }
    const auto [least, most] = std::minmax(seconds[0].back(), seconds[1].back());
    if (most > kLong && most > kFarBehind * least) break;  // the pick cannot depend on noise
    if (round == 0 && most < kLong)
      for (auto& way : seconds) way.clear();  // the first round warms up
    if (seconds[0].size() >= kFewest && seconds_since(begin) > kBudget) break;
  }
  return {median(seconds[0]), median(seconds[1])};
}

struct Score {
  int good = 0, all = 0;
};

void report(const char* kind, Shape shape, std::int64_t tokens, std::array<double, 2> seconds,
            adapt::Contraction pick, Score& score) {
  constexpr double kTolerated = 1.1;
  const bool through = pick == adapt::Contraction::through_input;
  const double ratio = seconds[through ? 0 : 1] / std::min(seconds[0], seconds[1]);
  const bool good = ratio <= kTolerated;
  ++score.all;
  score.good += good ? 1 : 0;
  std::printf("%-9s %5ldx%-5ld %6ld tokens: through %9.3f ms, folded %9.3f ms, pick %s, x%.2f%s\n",
              kind, static_cast<long>(shape.out), static_cast<long>(shape.in),
              static_cast<long>(tokens), seconds[0] * 1e3, seconds[1] * 1e3,
              through ? "through" : "folded ", ratio, good ? "" : "  MISSED");
  std::fflush(stdout);
}

adapt::Contraction pick(const adapt::TransformResidual& adapter, const adapt::LayerShape& shape,
                        std::int64_t tokens, bool training) {
  const adapt::Parts& parts = adapter.parts();
  return choose_contraction(parts.transforms, parts.residual.get(), shape, tokens, training);
}

void run(const adapt::Method& method, Shape shape, std::array<Score, 2>& scores) {
  const nn::LinearLayer layer(at::randn({shape.out, shape.in}), at::randn({shape.out}));
  adapt::FactorTable factors;
  const auto size = adapt::LayerShape::of(layer.weight());
  const auto adapter = adapt::build_adapter(method, layer, factors, Random(1), "layer");
  for (const std::int64_t tokens : kTokens) {
    const at::Tensor x = at::randn({tokens, shape.in}).set_requires_grad(true);
    const at::Tensor dy = at::randn({tokens, shape.out});
    const auto training = measure([&](adapt::Contraction way) {
      adapter->contraction = way;
      adapter->forward(layer, x).backward(dy);
      x.mutable_grad() = at::Tensor();
      for (const auto& [name, tensor] : adapter->parameters()) tensor.mutable_grad() = at::Tensor();
    });
    report("training", shape, tokens, training, pick(*adapter, size, tokens, true), scores[0]);
    const at::NoGradGuard no_grad;
    const auto inference = measure([&](adapt::Contraction way) {
      adapter->contraction = way;
      adapter->forward(layer, x);
    });
    report("inference", shape, tokens, inference, pick(*adapter, size, tokens, false), scores[1]);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  at::set_num_threads(1);
  const adapt::Method method = adapt::parse_method(argc > 1 ? argv[1] : "trm(rank=2)");
  std::array<Score, 2> scores;
  for (const Shape shape : kShapes) run(method, shape, scores);
  std::printf("training: pick within 10%% of the best: %d of %d\n", scores[0].good, scores[0].all);
  std::printf("inference: pick within 10%% of the best: %d of %d\n", scores[1].good, scores[1].all);
  std::printf("pick within 10%% of the best: %d of %d\n", scores[0].good + scores[1].good,
              scores[0].all + scores[1].all);
} catch (const std::exception& problem) {
  std::fprintf(stderr, "%s\n", problem.what());
  return 1;
}
