// What an adapter is made of: a Transform of the frozen weight and a Residual beside it.
//
//     W' = W0 T + D
//
// Each part knows one equation; how they are put together is written once, in
// transform_residual.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"

namespace ringlet::adapt {

/// Trainable tensors with their names inside a part.
using Parameters = std::vector<std::pair<std::string, at::Tensor>>;

/// The frozen weight's shape: [out, in] or [out, in, kh, kw].
struct LayerShape {
  std::int64_t out;
  std::int64_t in;
  std::int64_t kernel_height = 1;
  std::int64_t kernel_width = 1;
  bool convolution = false;

  static LayerShape of(const at::Tensor& weight);
  std::int64_t positions() const { return kernel_height * kernel_width; }
};

/// T, a matrix [in, in] that mixes input channels. Never formed in a training step.
class Transform {
 public:
  virtual ~Transform() = default;

  /// T x for vectors along the last axis: x [..., in] -> [..., in].
  virtual at::Tensor forward(const at::Tensor& x) const = 0;

  /// w T for rows along the last axis: w [..., in] -> [..., in].
  virtual at::Tensor right_multiply(const at::Tensor& w) const = 0;

  virtual Parameters parameters() const = 0;

  /// Distance of the parts from their identity start; a scalar that knows its gradient.
  virtual at::Tensor identity_penalty() const = 0;

  /// Distance of T T^t from the identity, in the same sense.
  virtual at::Tensor orthogonal_penalty() const = 0;

  /// Multiply-adds of forward() for one vector.
  virtual double multiply_adds() const = 0;

  /// Numbers that forward() writes for one vector.
  virtual double written() const = 0;
};

/// D, of the weight's shape, added to it.
class Residual {
 public:
  virtual ~Residual() = default;

  /// D applied as the layer applies its weight, without a bias.
  virtual at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const = 0;

  /// y + s D x; y, of the layer's output's shape, is used up.
  virtual at::Tensor add_to(const at::Tensor& y, double s, const nn::Layer& layer,
                            const at::Tensor& x) const;

  /// D itself.
  virtual at::Tensor weight() const = 0;

  virtual Parameters parameters() const = 0;
};

/// D = scale * up * down with a narrow middle: low rank as it is, and everything that can be
/// brought into that form (a tensor ring of rank R is one of rank R^2 with generated factors).
class FactoredResidual : public Residual {
 public:
  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const final;
  at::Tensor add_to(const at::Tensor& y, double s, const nn::Layer& layer,
                    const at::Tensor& x) const final;
  at::Tensor weight() const final;

 protected:
  struct Pair {
    at::Tensor down;  ///< [rank, in] or [rank, in, kh, kw]: a layer of the base's own kind
    at::Tensor up;    ///< [out, rank]
    double scale = 1.0;
  };
  virtual Pair factors() const = 0;
};

/// a b^t for matrices [rows, width] and [columns, width], for use where no gradient is recorded.
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b);

}  // namespace ringlet::adapt
