// Normalisation layers, their activation, and embeddings: small value types over their parameters.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

/// Group normalisation (Wu and He 2018) over x [B, C, ...].
class GroupNorm {
 public:
  GroupNorm(const WeightSource& source, std::int64_t groups, std::int64_t channels, double epsilon);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;
  std::int64_t groups_;
  double epsilon_;
};

/// Layer normalisation (Ba et al. 2016) over the last axis of x [..., C].
class LayerNorm {
 public:
  LayerNorm(const WeightSource& source, std::int64_t channels, double epsilon = 1e-5);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;
  double epsilon_;
};

/// Batch normalisation (Ioffe and Szegedy 2015) over x [B, C, H, W] by its running statistics,
/// which stay as they are: also where scale and shift learn.
class FrozenBatchNorm {
 public:
  FrozenBatchNorm(const WeightSource& source, std::int64_t channels, double epsilon = 1e-5);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_, mean_, variance_;
  double epsilon_;
};

/// SiLU (Elfwing et al. 2018) of a tensor that nobody else uses: in place where no gradient is
/// recorded, which halves the memory it takes.
at::Tensor silu(at::Tensor x);

/// Rows of a table by index: ids [...] (int64) to [..., width] in the compute type.
class Embedding {
 public:
  Embedding(const WeightSource& source, std::int64_t count, std::int64_t width);
  at::Tensor operator()(const at::Tensor& ids) const;

  /// More rows [n, width], in the weight's type.
  void append(const at::Tensor& rows);

 private:
  at::Tensor weight_;
  at::ScalarType dtype_;
};

}  // namespace ringlet::nn
