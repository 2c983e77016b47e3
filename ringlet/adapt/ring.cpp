#include "ringlet/adapt/ring.h"

#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>

namespace ringlet::adapt {

at::Tensor chain_of_vectors(const std::vector<at::Tensor>& cores) {
  at::Tensor chain = cores.front();
  for (std::size_t d = 1; d < cores.size(); ++d)  // the new index is the slower one
    chain = at::einsum("iab,kbc->kiac", {chain, cores[d]}).flatten(0, 1);
  return chain;
}

at::Tensor chain_of_matrices(const std::vector<at::Tensor>& cores) {
  at::Tensor chain = cores.front();
  for (std::size_t d = 1; d < cores.size(); ++d)
    chain = at::einsum("ijab,klbc->kiljac", {chain, cores[d]}).flatten(2, 3).flatten(0, 1);
  return chain;
}

SplitRing SplitRing::transposed() const { return {left.transpose(0, 1), right.transpose(0, 1)}; }

RingCut cheapest_cut(const std::vector<std::int64_t>& sizes) {
  std::int64_t total = 1;
  for (const std::int64_t size : sizes) total *= size;
  RingCut best = {sizes.size(), total, 1};  // a single mode has nothing on the right
  std::int64_t left = 1;
  for (std::size_t d = 1; d < sizes.size(); ++d) {
    left *= sizes[d - 1];
    if (left + total / left < best.left + best.right || best.cut == sizes.size())
      best = {d, left, total / left};
  }
  return best;
}

SplitRing split_ring(const std::vector<at::Tensor>& cores) {
  if (cores.size() == 1) {
    const std::int64_t rank = cores.front().size(2);
    const auto options = cores.front().options().requires_grad(false);
    return {cores.front(), at::eye(rank, options).view({1, 1, rank, rank})};
  }
  std::vector<std::int64_t> sizes;
  for (const at::Tensor& core : cores) sizes.push_back(core.size(1));
  const auto at_cut = cores.begin() + static_cast<std::ptrdiff_t>(cheapest_cut(sizes).cut);
  return {chain_of_matrices({cores.begin(), at_cut}), chain_of_matrices({at_cut, cores.end()})};
}

at::Tensor apply_ring(const SplitRing& ring, const at::Tensor& x) {
  const std::int64_t i_left = ring.left.size(0), j_left = ring.left.size(1);
  const std::int64_t i_right = ring.right.size(0), j_right = ring.right.size(1);
  const std::int64_t bonds = ring.left.size(2) * ring.left.size(3);

  // z[n, jM, iL, ab] = sum_jL x[n, jM, jL] L[iL, jL, a, b]
  const at::Tensor left = ring.left.permute({1, 0, 2, 3}).reshape({j_left, i_left * bonds});
  const at::Tensor z = at::matmul(x.reshape({-1, j_left}), left)
                           .view({-1, j_right, i_left, bonds})
                           .transpose(1, 2)
                           .reshape({-1, j_right * bonds});
  // y[n, iL, iM] = sum_(jM, ab) z[n, iL, jM, ab] M[iM, jM, b, a]
  const at::Tensor right = ring.right.permute({1, 3, 2, 0}).reshape({j_right * bonds, i_right});
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = i_left * i_right;
  return at::matmul(z, right).view({-1, i_left, i_right}).transpose(1, 2).reshape(shape);
}

at::Tensor ring_matrix(const SplitRing& ring) {
  const std::int64_t width = ring.left.size(1) * ring.right.size(1);
  return apply_ring(ring, at::eye(width, ring.left.options().requires_grad(false))).t();
}

}  // namespace ringlet::adapt
