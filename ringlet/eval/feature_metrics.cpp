#include "ringlet/eval/feature_metrics.h"

#include <algorithm>
#include <numeric>

#include <ATen/ops/cdist.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/random.h"

namespace ringlet::eval {
namespace {

void check_rows(const at::Tensor& features, std::int64_t least) {
  if (features.dim() != 2 || features.size(0) < least)
    throw Error(ErrorCode::invalid_argument, "evaluation",
                "at least " + std::to_string(least) + " pictures are needed, there are " +
                    std::to_string(features.dim() == 2 ? features.size(0) : 0));
}

void check_widths(const at::Tensor& a, const at::Tensor& b) {
  if (a.size(1) != b.size(1))
    throw Error(ErrorCode::mismatch, "evaluation",
                "features of widths " + std::to_string(a.size(1)) + " and " +
                    std::to_string(b.size(1)) + " cannot be compared",
                "both must come from the same network");
}

void check_finite(const at::Tensor& features) {
  if (!at::isfinite(features).all().item<bool>())
    throw Error(ErrorCode::non_finite, "evaluation", "a picture's features are not finite",
                "the network does not fit its input");
}

at::Tensor covariance(const at::Tensor& x) {
  const at::Tensor centred = x - x.mean(0, /*keepdim=*/true);
  return at::matmul(centred.t(), centred) / static_cast<double>(x.size(0) - 1);
}

at::Tensor square_root(const at::Tensor& symmetric) {
  const auto [values, vectors] = at::linalg_eigh(symmetric);
  return at::matmul(vectors * values.clamp_min(0.0).sqrt(), vectors.t());
}

at::Tensor cubic_kernel(const at::Tensor& a, const at::Tensor& b) {
  return (at::matmul(a, b.t()) / static_cast<double>(a.size(1)) + 1.0).pow(3);
}

/// The rows of a random subset, in the order of a partial Fisher-Yates shuffle.
at::Tensor subset(const at::Tensor& rows, std::int64_t size, RandomStream random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows.size(0)));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i)
    std::swap(order[i], order[i + random.uniform_int(order.size() - i)]);
  order.resize(static_cast<std::size_t>(size));
  return rows.index_select(0, at::tensor(order, at::kLong));
}

double unbiased_discrepancy(const at::Tensor& x, const at::Tensor& y) {
  const auto m = static_cast<double>(x.size(0));
  const at::Tensor within = cubic_kernel(x, x), other = cubic_kernel(y, y);
  const at::Tensor off_diagonal = within.sum() - within.trace() + other.sum() - other.trace();
  return (off_diagonal / (m * (m - 1.0)) - 2.0 * cubic_kernel(x, y).mean()).item<double>();
}

}  // namespace

at::Tensor unit_rows(const at::Tensor& features) {
  check_rows(features, 1);
  const at::Tensor wide = features.to(at::kDouble);
  const at::Tensor length = wide.norm(2, {1}, /*keepdim=*/true);
  if (!(at::isfinite(length) & (length > 0.0)).all().item<bool>())
    throw Error(ErrorCode::non_finite, "evaluation", "a picture's features are zero or not finite",
                "the network does not fit its input");
  return wide / length;
}

at::Tensor cosines(const at::Tensor& generated, const at::Tensor& real) {
  check_rows(generated, 1);
  check_rows(real, 1);
  check_widths(generated, real);
  return at::matmul(unit_rows(generated), unit_rows(real).t());
}

at::Tensor paired_cosines(const at::Tensor& pictures, const at::Tensor& texts) {
  check_rows(pictures, 1);
  check_rows(texts, 1);
  check_widths(pictures, texts);
  if (pictures.size(0) != texts.size(0))
    throw Error(ErrorCode::mismatch, "evaluation",
                std::to_string(pictures.size(0)) + " pictures and " +
                    std::to_string(texts.size(0)) + " texts do not make pairs");
  return (unit_rows(pictures) * unit_rows(texts)).sum(1);
}

double mean_pairwise_distance(const at::Tensor& features) {
  check_rows(features, 2);
  const auto n = static_cast<double>(features.size(0));
  const at::Tensor all = cosines(features, features);
  return 1.0 - ((all.sum() - all.trace()) / (n * (n - 1.0))).item<double>();
}

double vendi_score(const at::Tensor& features) {
  check_rows(features, 1);
  const at::Tensor kernel = cosines(features, features) / static_cast<double>(features.size(0));
  const at::Tensor values = at::linalg_eigvalsh(kernel);
  const at::Tensor positive = values.masked_select(values > 0.0);
  return (-(positive * positive.log()).sum()).exp().item<double>();
}

double frechet_distance(const at::Tensor& first, const at::Tensor& second) {
  check_rows(first, 2);
  check_rows(second, 2);
  check_widths(first, second);
  check_finite(first);
  check_finite(second);
  const at::Tensor a = first.to(at::kDouble), b = second.to(at::kDouble);
  const at::Tensor s1 = covariance(a), s2 = covariance(b);
  const at::Tensor root = square_root(s1);
  const at::Tensor product = at::matmul(at::matmul(root, s2), root);
  const at::Tensor cross = at::linalg_eigvalsh(product).clamp_min(0.0).sqrt().sum();
  const at::Tensor means = (a.mean(0) - b.mean(0)).pow(2).sum();
  return (means + s1.trace() + s2.trace() - 2.0 * cross).item<double>();
}

double kernel_distance(const at::Tensor& first, const at::Tensor& second,
                       const KernelDistanceOptions& options) {
  check_rows(first, 2);
  check_rows(second, 2);
  check_widths(first, second);
  check_finite(first);
  check_finite(second);
  const at::Tensor a = first.to(at::kDouble), b = second.to(at::kDouble);
  const std::int64_t size = std::min({a.size(0), b.size(0), options.subset_size});
  if (a.size(0) == size && b.size(0) == size) return unbiased_discrepancy(a, b);  // the one subset
  double sum = 0.0;
  for (int i = 0; i < options.subsets; ++i) {
    const Random random(options.seed);
    const auto number = static_cast<std::uint64_t>(i);
    sum += unbiased_discrepancy(subset(a, size, random.stream("subset of a", number)),
                                subset(b, size, random.stream("subset of b", number)));
  }
  return sum / options.subsets;
}

double clip_mean_discrepancy(const at::Tensor& first, const at::Tensor& second) {
  check_widths(first, second);
  const at::Tensor a = unit_rows(first), b = unit_rows(second);
  constexpr double kSigma = 10.0, kScale = 1000.0;
  const auto kernel = [](const at::Tensor& x, const at::Tensor& y) {
    return (at::cdist(x, y).pow(2) / (-2.0 * kSigma * kSigma)).exp().mean();
  };
  return kScale * (kernel(a, a) + kernel(b, b) - 2.0 * kernel(a, b)).item<double>();
}

}  // namespace ringlet::eval
