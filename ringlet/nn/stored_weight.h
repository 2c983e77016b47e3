// A weight as it is kept in memory: a tensor, or narrow codes with scales.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/weight_storage.h"

namespace ringlet::nn {

/// Numbers that share a scale in nf4, and the values that its codes stand for: quantiles of the
/// normal distribution in [-1, 1], as published with QLoRA (Dettmers et al. 2023, appendix E).
inline constexpr std::int64_t kNf4Block = 64;
inline constexpr std::array<float, 16> kNf4Levels = {-1.0F,
                                                     -0.6961928009986877F,
                                                     -0.5250730514526367F,
                                                     -0.39491748809814453F,
                                                     -0.28444138169288635F,
                                                     -0.18477343022823334F,
                                                     -0.09105003625154495F,
                                                     0.0F,
                                                     0.07958029955625534F,
                                                     0.16093020141124725F,
                                                     0.24611230194568634F,
                                                     0.33791524171829224F,
                                                     0.44070982933044434F,
                                                     0.5626170039176941F,
                                                     0.7229568362236023F,
                                                     1.0F};

/// A weight [out, …]. Codes are one of
///   fp8, int8: code × scale of the row, the scale being the row's largest size / 448 or / 127;
///   nf4: level × scale of the block of 64 numbers in the order of memory, the scale being the
///        block's largest size. Two codes a byte, the first one in its upper half.
/// Cheap to copy. Codes are frozen: they have no gradient, and nobody writes to them.
class StoredWeight {
 public:
  StoredWeight() = default;
  /// The tensor itself; of a type that is narrower than the computation's or not.
  StoredWeight(at::Tensor tensor);  // NOLINT(google-explicit-constructor): a tensor is a weight

  /// `weight` in another storage, on its own device: the tensor itself for as_stored, a tensor of
  /// that type for fp32 and bf16, else codes. Throws Error(non_finite) for codes of numbers that
  /// have none.
  static StoredWeight narrowed(const at::Tensor& weight, WeightStorage storage);

  bool defined() const { return plain_.defined() || codes_ != nullptr; }
  bool coded() const { return codes_ != nullptr; }
  /// as_stored for a plain tensor of any type.
  WeightStorage storage() const;

  at::IntArrayRef sizes() const;
  std::int64_t size(std::int64_t axis) const { return sizes()[static_cast<std::size_t>(axis)]; }
  std::int64_t dim() const { return static_cast<std::int64_t>(sizes().size()); }
  std::int64_t numel() const;
  at::Device device() const;
  std::size_t nbytes() const;  ///< with the scales

  /// Whether gradients of it are recorded.
  bool learns() const { return plain_.defined() && plain_.requires_grad(); }
  /// Whether a computation in this type needs a copy of it.
  bool needs_widening(at::ScalarType type) const { return coded() || plain_.scalar_type() != type; }

  /// The tensor; undefined for codes.
  const at::Tensor& plain() const { return plain_; }
  /// What is in memory: the tensor, or codes and scales.
  std::vector<at::Tensor> tensors() const;

  /// The whole in a type: a new tensor, unless it is a plain one of this type. Codes are widened in
  /// fp32 and rounded to the type once.
  at::Tensor widened(at::ScalarType type) const;

  /// Of the matrix [out, rest] that it is: some rows and columns of it in a type.
  struct Part {
    std::int64_t first_row = 0, rows = 0, first_column = 0, columns = 0;
  };
  at::Tensor widened(at::ScalarType type, const Part& part) const;

 private:
  struct Codes;

  at::Tensor plain_;
  std::shared_ptr<const Codes> codes_;
};

}  // namespace ringlet::nn
