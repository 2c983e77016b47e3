// What an adapter is made of: transforms of the frozen weight, a residual beside it, a rescaling.
//
//     W' = N(T_out W0 T_in + D)
//
// Each part knows one equation; how they are put together is written once, in
// transform_residual.h.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/derived.h"
#include "ringlet/core/random.h"
#include "ringlet/nn/layer.h"

namespace ringlet::adapt {

/// Trainable tensors with their names inside a part.
using Parameters = std::vector<std::pair<std::string, at::Tensor>>;

/// Frozen random matrices that layers share, by what they are made from.
using SharedTensors = std::map<std::string, at::Tensor>;

/// The frozen weight's shape: [out, in] or [out, in, kh, kw].
struct LayerShape {
  std::int64_t out;
  std::int64_t in;
  std::int64_t kernel_height = 1;
  std::int64_t kernel_width = 1;
  bool convolution = false;

  static LayerShape of(at::IntArrayRef weight);
  static LayerShape of(const at::Tensor& weight) { return of(weight.sizes()); }
  std::int64_t positions() const { return kernel_height * kernel_width; }
  std::int64_t patch() const { return in * positions(); }  ///< numbers that make one output
  std::vector<std::int64_t> sizes() const;                 ///< of the weight
  /// [first, in] or [first, in, kh, kw]
  std::vector<std::int64_t> with_rows(std::int64_t first) const;
};

/// One number written costs as much as this many multiply-adds of a matrix product. Few, since wide
/// intermediates are made in pieces that stay in the cache (ring.cpp).
inline constexpr double kWriteCost = 12.0;

/// Which of the weight's axes a part works on: in -> columns, out -> rows.
enum class Side { input, output };

/// T, a square matrix that mixes the input channels (W0 T) or the output channels (T W0). Formed
/// only where that is cheaper (trm).
class Transform {
 public:
  virtual ~Transform() = default;

  virtual Side side() const { return Side::input; }

  /// How many channels it mixes: the side's, or all numbers of a convolution's input patch
  /// (in * kh * kw). The latter has no form that acts on the input, only one on the weight.
  virtual std::int64_t width() const = 0;

  /// T x for vectors along the last axis: x [..., width] -> [..., width].
  virtual at::Tensor forward(const at::Tensor& x) const = 0;

  /// w T for rows along the last axis: w [..., width] -> [..., width].
  virtual at::Tensor right_multiply(const at::Tensor& w) const = 0;

  virtual Parameters parameters() const = 0;

  /// Where those of parameters() start that are not zero when T is the identity, by their names:
  /// what weight decay pulls towards. The tensors are the part's own.
  virtual Parameters starts() const { return {}; }

  /// What it computes from its parameters alone.
  virtual std::vector<const Derived*> derived() const { return {}; }

  /// Whether an output-side transform changes the layer's bias with its weight (PEFT's IA3).
  virtual bool takes_bias() const { return false; }

  /// Distance of the parts from their identity start, a scalar that knows its gradient; undefined
  /// where the method has no such penalty.
  virtual at::Tensor identity_penalty() const { return {}; }

  /// Distance of T T^t from the identity, in the same sense.
  virtual at::Tensor orthogonal_penalty() const { return {}; }

  /// Multiply-adds of forward() for one vector.
  virtual double multiply_adds() const = 0;

  /// Numbers that forward() writes for one vector.
  virtual double written() const = 0;

  /// Tensors that the part needs beside those of parameters() and starts(), and that no file holds:
  /// random matrices, places. They are the part's own handles: who moves a part moves them as well.
  virtual std::vector<at::Tensor> frozen() const { return {}; }
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

  /// Where those of parameters() start that make D zero by not being zero themselves, in the sense
  /// of Transform::starts().
  virtual Parameters starts() const { return {}; }

  /// Tensors that belong to the adapter, and to its file, but are not trained.
  virtual Parameters constants() const { return {}; }

  /// What it computes from its parameters alone.
  virtual std::vector<const Derived*> derived() const { return {}; }

  /// Multiply-adds of forward() for one position of the output.
  virtual double multiply_adds() const = 0;

  /// Multiply-adds of weight().
  virtual double forming() const = 0;

  /// How many ranks rank dropout can leave out; 0 where D has none.
  virtual std::int64_t ranks() const { return 0; }

  /// Scales the ranks until the next call (rank dropout, LyCORIS): [ranks] in fp32, 0 for those
  /// that are left out; undefined restores all. Only for a D with ranks.
  virtual void scale_ranks(at::Tensor factors);

  /// In the sense of Transform::frozen(): neither parameters, starts nor constants.
  virtual std::vector<at::Tensor> frozen() const { return {}; }
};

/// D = scale * up * down with a narrow middle: low rank as it is, and everything that can be
/// brought into that form (a tensor ring of rank R is one of rank R^2 with generated factors).
class FactoredResidual : public Residual {
 public:
  struct Pair {
    at::Tensor down;  ///< [rank, in] or [rank, in, kh, kw]: a layer of the base's own kind
    at::Tensor up;    ///< [out, rank]
    double scale = 1.0;
  };

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const final;
  at::Tensor add_to(const at::Tensor& y, double s, const nn::Layer& layer,
                    const at::Tensor& x) const final;
  at::Tensor weight() const final;
  double multiply_adds() const final;
  double forming() const final;
  std::int64_t ranks() const final { return width_; }
  void scale_ranks(at::Tensor factors) final { kept_ = std::move(factors); }

  /// The factors with the ranks that are left.
  Pair pair() const;

 protected:
  FactoredResidual(const LayerShape& shape, std::int64_t width) : shape_(shape), width_(width) {}
  virtual Pair factors() const = 0;

  LayerShape shape_;

 private:
  std::int64_t width_;  ///< the number of columns of `up`
  at::Tensor kept_;     ///< factors of the ranks under rank dropout
};

/// A weight [out, in] or [out, in, kh, kw] as [out, in, positions].
at::Tensor three_axes(const at::Tensor& weight);

/// a b^t for matrices [rows, width] and [columns, width], for use where no gradient is recorded.
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b);

/// A start tensor: uniform in +-bound, normal with a deviation, or zero; fp32.
at::Tensor uniform_start(at::IntArrayRef shape, double bound, RandomStream& random);
at::Tensor normal_start(at::IntArrayRef shape, double deviation, RandomStream& random);
/// Uniform in +-1/sqrt(fan-in), the Kaiming start of PEFT and kohya; the fan-in is all axes but
/// the first.
at::Tensor kaiming_start(at::IntArrayRef shape, RandomStream& random);

}  // namespace ringlet::adapt
