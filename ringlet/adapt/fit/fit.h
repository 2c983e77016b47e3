// Adapters from a weight that is already known: parameters for which W' comes near W*.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/transform_residual.h"
#include "ringlet/nn/layer.h"

namespace ringlet::adapt {

struct FitOptions {
  std::int64_t steps = 1000;  ///< at most, where there is no closed form
  /// Converged when 50 steps (20 of a ring matrix, whose steps are better scaled; 10 sweeps) lower
  /// the squared error by a smaller share.
  double tolerance = 1e-3;
  std::uint64_t seed = 0;  ///< of the push that takes tensor rings away from their start
};

struct FitResult {
  double relative_error = 1.0;  ///< |W' - W*| / |W* - W0|, Frobenius norms
  std::int64_t parameters = 0;
  std::int64_t steps = 0;  ///< of the optimiser, and sweeps of alternating least squares
  double seconds = 0.0;
  bool closed_form = false;
  bool converged = false;
};

/// Sets the adapter's parameters so that its weight on `layer` is near `wanted`, at strength 1:
///   lora, tt, diagonal, diff, magnitude   alone: singular values, TT-SVD, least squares
///   oft                                   alone: the nearest rotations
///   tr                                    alone: alternating least squares over its cores
///   lokr, loha                            alone: their factors in turns (loha: then L-BFGS)
///   lora with magnitude                   the lengths and the low rank in turns
///   transforms with lora                  L-BFGS over the transforms with the best D for each T
///   trm, alone or with lora or tr         sweeps over its cores, then L-BFGS in coordinates made
///                                         from their Gram matrices
///   everything else                       L-BFGS over all parameters from the closed form of its
///                                         residual, where there is one
/// The best parameters that were seen are kept, also where the search does not converge. A `bias`
/// part becomes `wanted_bias` less the layer's own where that is given. Equal input gives equal
/// parameters. Throws Error(mismatch) when the shapes differ, Error(non_finite) for such weights
/// and Error(invalid_argument) when `wanted` is the layer's own weight.
FitResult fit(TransformResidual& adapter, const nn::Layer& layer, const at::Tensor& wanted,
              const FitOptions& options = {}, const at::Tensor& wanted_bias = {});

/// The smallest rank whose best approximation of `difference` [out, in(, kh, kw)] has at most this
/// relative error.
std::int64_t rank_for_error(const at::Tensor& difference, double relative_error);

}  // namespace ringlet::adapt
