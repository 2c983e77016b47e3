// Fits of adapters to known weights (ringlet/adapt/fit/fit.h), timed.
//
//     ringlet_bench_fits [METHOD …]
//
// Layers of 256x256 and 512x256 whose W0 has a decaying spectrum, and differences with as flat a
// one as real fine-tunings have. One thread. A time is also given in products of two 256x256
// matrices on the same machine, so that it can be compared between machines. Exits with 1 where a
// transform beside lora leaves a larger error than lora of that rank alone.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/fit/fit.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/method_text.h"

namespace {

using namespace ringlet;
using Clock = std::chrono::steady_clock;

constexpr const char* kLowRank = "lora(rank=2)";
constexpr std::array kMethods = {
    "trm(rank=2)+lora(rank=2)",
    "trm(rank=2)+tr(rank=4)",
    "trm(rank=2)",
    "tr(rank=4)",
    "dora(rank=2)",
    "oft(block=16)",
    "loha(rank=2)",
    "lokr(rank=4)",
    "oft(block=16)+lora(rank=2)",
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// Q diag(s) P with s falling from `most` to `least` in equal ratios.
at::Tensor with_spectrum(std::int64_t rows, std::int64_t columns, double most, double least) {
  const std::int64_t count = std::min(rows, columns);
  const at::Tensor left = std::get<0>(at::linalg_qr(at::randn({rows, count})));
  const at::Tensor right = std::get<0>(at::linalg_qr(at::randn({columns, count})));
  const at::Tensor values = at::exp(at::linspace(std::log(most), std::log(least), count));
  return at::matmul(left * values, right.t());
}

double seconds_per_product() {
  const at::Tensor a = at::randn({256, 256}), b = at::randn({256, 256});
  std::vector<double> seconds;
  constexpr int kRounds = 50;
  for (int i = 0; i < kRounds; ++i) {
    const auto begin = Clock::now();
    const at::Tensor product = at::matmul(a, b);
    seconds.push_back(seconds_since(begin));
  }
  return median(seconds);
}

/// Fits a method to the layers and prints a line; returns the error over all of them.
double measure(const std::string& text, double product) {
  const adapt::Method method = adapt::parse_method(text);
  std::vector<double> seconds;
  double missed = 0.0, all = 0.0;
  std::int64_t steps = 0;
  at::manual_seed(1);
  for (const std::int64_t out : {256, 512, 256}) {
    const nn::LinearLayer layer(with_spectrum(out, 256, 6.0, 0.002), {});
    // Part of what a fine-tuning learns lies along the weight itself.
    const at::Tensor change = with_spectrum(out, 256, 0.6, 0.03) +
                              0.1 * at::matmul(layer.weight(), with_spectrum(256, 256, 1.0, 0.1));
    adapt::FactorTable factors;
    const auto adapter = adapt::build_adapter(method, layer, factors, Random(1), "layer");
    const auto begin = Clock::now();
    const adapt::FitResult report = adapt::fit(*adapter, layer, layer.weight() + change);
    seconds.push_back(seconds_since(begin));
    steps += report.steps;
    const double squared = change.square().sum().item<double>();
    missed += squared * report.relative_error * report.relative_error;
    all += squared;
  }
  const double error = std::sqrt(missed / all), products = median(seconds) / product;
  std::printf("%-28s %8.4f s a fit, %8.0f products, %5lld steps, error %.4f\n", text.c_str(),
              median(seconds), products, static_cast<long long>(steps), error);
  std::fflush(stdout);
  return error;
}

}  // namespace

int main(int argc, char** argv) try {
  at::set_num_threads(1);
  const at::NoGradGuard no_grad;
  const double product = seconds_per_product();
  std::printf("a product of 256x256 matrices: %.3f ms\n", 1e3 * product);
  const double alone = measure(kLowRank, product);
  const std::vector<std::string> chosen(argv + 1, argv + argc);
  bool good = true;
  for (const std::string method : kMethods) {
    if (!chosen.empty() && std::ranges::find(chosen, method) == chosen.end()) continue;
    const double error = measure(method, product);
    const bool beside = method.ends_with(std::string("+") + kLowRank);
    if (beside && !(error < alone)) std::printf("  is no better than %s\n", kLowRank);
    good = good && (!beside || error < alone);
  }
  return good ? 0 : 1;
} catch (const std::exception& problem) {
  std::fprintf(stderr, "%s\n", problem.what());
  return 1;
}
