// Metrics on features of pictures, [N, width], whatever network they come from.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::eval {

/// Rows of length 1, fp64. Throws Error(non_finite) for rows that are zero or not finite.
at::Tensor unit_rows(const at::Tensor& features);

/// Cosine of every generated picture with every real one, [generated, real]. DINO and CLIP-I scores
/// (Ruiz et al. 2023) are its mean.
at::Tensor cosines(const at::Tensor& generated, const at::Tensor& real);

/// Cosine of each picture with its own text, [N]: CLIP-T. Throws Error(mismatch) for other shapes.
at::Tensor paired_cosines(const at::Tensor& pictures, const at::Tensor& texts);

/// Mean of 1 - cosine over all pairs of different rows: the diversity of pictures of one prompt.
/// Throws Error(invalid_argument) for fewer than two rows.
double mean_pairwise_distance(const at::Tensor& features);

/// Effective number of different pictures: exp of the entropy of the eigenvalues of K / n with the
/// cosine kernel (Friedman and Dieng 2023, the Vendi score).
double vendi_score(const at::Tensor& features);

/// Frechet distance of two sets under Gaussians (Heusel et al. 2017): |mu1 - mu2|^2 + Tr(S1 + S2 -
/// 2 (S1 S2)^(1/2)), covariances with n - 1. The root's trace comes from the eigenvalues of
/// S1^(1/2) S2 S1^(1/2), which are real, so that no rounding term is needed on the diagonal. Throws
/// Error(invalid_argument) for fewer than two rows, and Error(non_finite).
double frechet_distance(const at::Tensor& a, const at::Tensor& b);

struct KernelDistanceOptions {
  int subsets = 100;
  std::int64_t subset_size = 1000;  ///< at most; all rows where there are fewer
  std::uint64_t seed = 0;
};

/// KID (Binkowski et al. 2018): mean over random subsets of the unbiased squared maximum mean
/// discrepancy with the kernel (x.y / width + 1)^3. Throws as frechet_distance.
double kernel_distance(const at::Tensor& a, const at::Tensor& b,
                       const KernelDistanceOptions& options = {});

/// CMMD (Jayasumana et al. 2024): 1000 times the biased squared maximum mean discrepancy of unit
/// rows with a Gaussian kernel of sigma 10, the diagonal included.
double clip_mean_discrepancy(const at::Tensor& a, const at::Tensor& b);

}  // namespace ringlet::eval
