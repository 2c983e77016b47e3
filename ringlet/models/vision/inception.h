// Inception-v3 (Szegedy et al. 2016) as the Frechet Inception distance uses it (Heusel et al.
// 2017): torchvision's layers with the pooling of TensorFlow's 2015 network, up to the last
// pooling. Tensor names are those of the weights that pytorch-fid publishes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// A convolution without bias, batch normalisation with its stored statistics, ReLU.
class InceptionConv {
 public:
  using Pair = std::array<std::int64_t, 2>;  ///< rows, columns

  InceptionConv(const nn::WeightSource& source, std::int64_t in, std::int64_t out, Pair kernel,
                std::int64_t stride = 1, Pair padding = {0, 0});
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor kernel_;
  nn::BatchNorm norm_;
  std::int64_t stride_;
  Pair padding_;
};

/// Convolutions one after another.
using InceptionPath = std::vector<InceptionConv>;

class InceptionV3 {
 public:
  static constexpr std::int64_t kSide = 299;
  static constexpr std::int64_t kWidth = 2048;

  explicit InceptionV3(const nn::WeightSource& source);

  /// pixels [B, 3, 299, 299] in [-1, 1] -> [B, 2048].
  at::Tensor features(const at::Tensor& pixels) const;

 private:
  enum class Pool { average, maximum };

  /// Paths beside each other, joined by channels; the last path sees the pooled input.
  struct MixedBlock {
    std::vector<InceptionPath> paths;
    InceptionPath pooled;  ///< empty: the pooled input itself
    Pool pool = Pool::average;
    std::int64_t stride = 1;
    at::Tensor forward(const at::Tensor& x) const;
  };

  /// The last two blocks split their paths in two at the end.
  struct SplitBlock {
    InceptionConv branch1x1, branch3x3_1, branch3x3_2a, branch3x3_2b;
    InceptionConv branch3x3dbl_1, branch3x3dbl_2, branch3x3dbl_3a, branch3x3dbl_3b, branch_pool;
    Pool pool;
    SplitBlock(const nn::WeightSource& source, std::int64_t in, Pool pool);
    at::Tensor forward(const at::Tensor& x) const;
  };

  static MixedBlock block_a(const nn::WeightSource& s, std::int64_t in, std::int64_t pooled);
  static MixedBlock block_b(const nn::WeightSource& s, std::int64_t in);
  static MixedBlock block_c(const nn::WeightSource& s, std::int64_t in, std::int64_t inner);
  static MixedBlock block_d(const nn::WeightSource& s, std::int64_t in);
  static at::Tensor pooled(const at::Tensor& x, Pool pool, std::int64_t stride);

  InceptionPath first_, second_;
  std::vector<MixedBlock> mixed_;
  SplitBlock mixed_7b_, mixed_7c_;
};

}  // namespace ringlet::models
