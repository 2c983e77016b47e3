#include "ringlet/adapt/parts/trm.h"

#include <cmath>

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/kernels.h"

namespace ringlet::adapt {
namespace {

/// A random R x R matrix around 1/R in steps of 1/16: dyadic, so that products are exact.
at::Tensor random_bond_matrix(std::int64_t rank, RandomStream& random) {
  constexpr std::int64_t kSteps = 16;
  constexpr std::int64_t kSpread = 5;
  const std::int64_t centre = std::max<std::int64_t>(1, kSteps / rank);
  std::vector<double> values;
  for (std::int64_t i = 0; i < rank * rank; ++i) {
    const auto draw = static_cast<std::int64_t>(random.uniform_int(2 * kSpread + 1)) - kSpread;
    values.push_back(static_cast<double>(centre + draw) / kSteps);
  }
  return at::tensor(values, at::kDouble).view({rank, rank});
}

/// M_1 … M_D with tr(M_1 … M_D) = 1: drawn until the trace is well away from zero, then the first
/// is scaled.
std::vector<at::Tensor> bond_matrices(std::size_t count, std::int64_t rank, RandomStream& random) {
  if (rank == 1) return std::vector<at::Tensor>(count, at::ones({1, 1}, at::kDouble));
  constexpr double kSmallestTrace = 0.5;
  while (true) {
    std::vector<at::Tensor> matrices;
    at::Tensor chain = at::eye(rank, at::kDouble);
    for (std::size_t d = 0; d < count; ++d)
      chain = chain.matmul(matrices.emplace_back(random_bond_matrix(rank, random)));
    const double trace = chain.trace().item<double>();
    if (std::abs(trace) < kSmallestTrace) continue;
    matrices.front() /= trace;
    return matrices;
  }
}

}  // namespace

std::vector<at::Tensor> identity_cores(const Factors& factors, std::int64_t rank, TrmStart start,
                                       RandomStream random) {
  if (rank < 1) throw Error(ErrorCode::invalid_argument, "trm", "the rank must be at least 1");
  // Proposition 1: every entry of every M_d is 1/R, and the trace of their product is 1.
  const std::vector<at::Tensor> matrices =
      start == TrmStart::asymmetric
          ? bond_matrices(factors.size(), rank, random)
          : std::vector<at::Tensor>(
                factors.size(),
                at::full({rank, rank}, 1.0 / static_cast<double>(rank), at::kDouble));
  std::vector<at::Tensor> cores;
  for (std::size_t d = 0; d < factors.size(); ++d)
    cores.push_back(at::einsum("ij,ab->ijab", {at::eye(factors[d], at::kDouble), matrices[d]})
                        .to(at::kFloat)
                        .contiguous());
  return cores;
}

namespace {

/// T is formed up to this width, a megabyte for each layer: all of them are kept for a step.
constexpr std::int64_t kMostFormed = 512;

/// x m^t for vectors along the last axis.
at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& m) {
  return nn::kernels_for(x).linear(x, m, {});
}

Derived factors_of(const std::vector<at::Tensor>& cores, bool transposed) {
  return {transposed ? "ring factors transposed" : "ring factors", cores,
          [transposed](const Tensors& from) -> Tensors {
            const RingFactors ring = ring_factors(from, transposed);
            return {ring.left, ring.right};
          }};
}

}  // namespace

TensorRingMatrix::TensorRingMatrix(std::int64_t width, const Factors& factors, std::int64_t rank,
                                   TrmStart start, RandomStream random)
    : width_(width), cores_(identity_cores(factors, rank, start, random)) {
  for (at::Tensor& core : cores_) {
    start_.push_back(core.clone());
    core.set_requires_grad(true);
  }
  // As choose_contraction counts, but the ring's small products run at half the speed of large
  // ones.
  constexpr double kSmall = 2.0;
  const auto wide = static_cast<double>(width);
  formed_ = width <= kMostFormed && wide * wide + kWriteCost * wide <=
                                        kSmall * ring_multiply_adds() + kWriteCost * ring_written();
  fused_ = cores_.size() == 3 && chain_multiply_adds() <= ring_multiply_adds();
  if (formed_) {
    matrix_ = {"ring matrix " + std::to_string(width), cores_,
               [width](const Tensors& cores) -> Tensors {
                 return {first_entries(first_entries(ring_matrix(cores), -1, width), -2, width)};
               }};
  } else {
    factors_ = factors_of(cores_, false);
    transposed_ = factors_of(cores_, true);
  }
}

std::vector<const Derived*> TensorRingMatrix::derived() const {
  if (formed_) return {&matrix_};
  return {&factors_, &transposed_};
}

at::Tensor TensorRingMatrix::apply(const Derived& factors, const at::Tensor& x) const {
  const Tensors made = factors.values(x.scalar_type());
  const RingFactors ring = {made[0], made[1]};
  std::int64_t padded = 1;
  for (const at::Tensor& core : cores_) padded *= core.size(0);
  if (padded == width_) return apply_ring(ring, x);
  return apply_ring(ring, at::constant_pad_nd(x, {0, padded - width_})).narrow(-1, 0, width_);
}

const RingKernel* TensorRingMatrix::kernel_for(const at::Tensor& x) const {
  const at::Tensor& core = cores_.front();
  if (!fused_ || x.device() != core.device() || x.scalar_type() != core.scalar_type())
    return nullptr;
  const RingKernel* kernel = ring_kernel_for(x.device(), x.scalar_type());
  return kernel != nullptr && kernel->takes(cores_) ? kernel : nullptr;
}

at::Tensor TensorRingMatrix::forward(const at::Tensor& x) const {
  if (const RingKernel* kernel = kernel_for(x)) return fused_ring(*kernel, x, cores_, false);
  return formed_ ? times_transposed(x, matrix_.values(x.scalar_type()).front())
                 : apply(factors_, x);
}

at::Tensor TensorRingMatrix::right_multiply(const at::Tensor& w) const {
  if (const RingKernel* kernel = kernel_for(w)) return fused_ring(*kernel, w, cores_, true);
  return formed_ ? times_transposed(w, matrix_.values(w.scalar_type()).front().t())
                 : apply(transposed_, w);
}

at::Tensor TensorRingMatrix::matrix() const {
  return ring_matrix(cores_).narrow(0, 0, width_).narrow(1, 0, width_);
}

Parameters TensorRingMatrix::named(const std::vector<at::Tensor>& cores) {
  Parameters named;
  for (std::size_t d = 0; d < cores.size(); ++d)
    named.emplace_back("core_" + std::to_string(d), cores[d]);
  return named;
}

Parameters TensorRingMatrix::parameters() const { return named(cores_); }

Parameters TensorRingMatrix::starts() const { return named(start_); }

at::Tensor TensorRingMatrix::identity_penalty() const {
  // R_I: the sum over cores and rank slices of the Frobenius distance from the start.
  at::Tensor sum;
  for (std::size_t d = 0; d < cores_.size(); ++d) {
    const at::Tensor distance = (cores_[d] - start_[d]).pow(2).sum({0, 1});
    // The root has no gradient at zero, where every adapter starts.
    constexpr double kSmall = 1e-12;
    const at::Tensor norms = ((distance + kSmall).sqrt() - std::sqrt(kSmall)).sum();
    sum = sum.defined() ? sum + norms : norms;
  }
  return sum;
}

at::Tensor TensorRingMatrix::orthogonal_penalty() const {
  // R_O: the cores of T T^t are sum_l A[i, l] (x) A[j, l] (Proposition 2), here against the same
  // product of the starting cores.
  const auto squared = [](const at::Tensor& core) {
    return at::einsum("ilab,jlcd->ijacbd", {core, core}).flatten(4, 5).flatten(2, 3);
  };
  at::Tensor sum;
  for (std::size_t d = 0; d < cores_.size(); ++d) {
    const at::Tensor distance = (squared(cores_[d]) - squared(start_[d])).pow(2).sum();
    sum = sum.defined() ? sum + distance : distance;
  }
  return sum;
}

double TensorRingMatrix::ring_multiply_adds() const {
  std::vector<std::int64_t> sizes;
  for (const at::Tensor& core : cores_) sizes.push_back(core.size(1));
  const auto [cut, left, right] = cheapest_cut(sizes);
  const auto bonds = static_cast<double>(cores_.front().size(2) * cores_.front().size(3));
  return static_cast<double>(left * right) * bonds * static_cast<double>(left + right);
}

double TensorRingMatrix::ring_written() const {
  const auto bonds = static_cast<double>(cores_.front().size(2) * cores_.front().size(3));
  return 2.0 * static_cast<double>(width_) * (bonds + 1.0);
}

double TensorRingMatrix::chain_multiply_adds() const {
  const RingChain ring = chain_of(cores_);
  const std::int64_t bonds = ring.bonds(), middle = ring.f2 * ring.rank;
  return static_cast<double>(ring.width() * bonds * (ring.f1 + middle + ring.f3));
}

double TensorRingMatrix::multiply_adds() const {
  return formed_ ? static_cast<double>(width_ * width_) : ring_multiply_adds();
}

double TensorRingMatrix::written() const {
  return formed_ ? static_cast<double>(width_) : ring_written();
}

}  // namespace ringlet::adapt
