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

  /// silu() of the normalised x. For the backward pass x alone is kept, and normalised again there.
  at::Tensor with_silu(const at::Tensor& x) const;

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

/// Whose mean and variance a batch normalisation uses.
enum class Statistics {
  stored,  ///< the running averages, which stay as they are: also where scale and shift learn
  batch,   ///< those of the batch, towards which the running averages move (learning from nothing)
};

/// Batch normalisation (Ioffe and Szegedy 2015) over x [B, C, H, W].
class BatchNorm {
 public:
  BatchNorm(const WeightSource& source, std::int64_t channels, double epsilon = 1e-5);

  /// With Statistics::batch the running averages move by a tenth, as torch.nn.BatchNorm2d's do.
  /// They are tensors of the network like any other (saved, and never given a gradient), and must
  /// be its own: throws Error(invalid_argument) unless its source is trainable, and for a batch
  /// with one number per channel, which has no variance.
  at::Tensor operator()(const at::Tensor& x, Statistics statistics = Statistics::stored) const;

 private:
  at::Tensor weight_, bias_, mean_, variance_;
  double epsilon_;
  bool own_;
};

/// SiLU (Elfwing et al. 2018) of a tensor that nobody else uses: in place where no gradient is
/// recorded, which halves the memory it takes.
at::Tensor silu(at::Tensor x);

/// Rows of a table by index: ids [...] (int64) to [..., width] in the compute type.
class Embedding {
 public:
  Embedding(const WeightSource& source, std::int64_t count, std::int64_t width);
  at::Tensor operator()(const at::Tensor& ids) const;

  /// More rows [n, width]. The table takes the wider type of both.
  void append(const at::Tensor& rows);

 private:
  at::Tensor weight_;
  at::ScalarType dtype_;
};

}  // namespace ringlet::nn
