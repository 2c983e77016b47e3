// What storage types do to the same weights: differences that are rounding and nothing else.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace ringlet::pipeline {

/// How two tensors of one shape differ.
struct StoredDifference {
  double squared = 0.0;   ///< the sum of the squared differences
  double rounding = 0.0;  ///< what rounding to both types is expected to make of that sum
  /// Some numbers differ, and each pair by what one number may differ by when it is stored in both
  /// types: at most half a unit in the last place of either.
  bool rounding_alone = false;
};

/// Compares `a`, whose numbers were stored as `type_a`, with `b`, stored as `type_b`; both may have
/// been widened since. Two tensors of one type differ by no rounding: equal types are compared in
/// fp32, in which adapters are fitted. Throws Error(non_finite) that names `name` where a number is
/// NaN or infinite.
StoredDifference compare_stored(const at::Tensor& a, at::ScalarType type_a, const at::Tensor& b,
                                at::ScalarType type_b, const std::string& name);

/// The type that the numbers of `tensor` were stored in, as far as they tell: `stored` when each of
/// them is one of its numbers, else the tensor's own type.
at::ScalarType stored_type(const at::Tensor& tensor, at::ScalarType stored);

/// "fp32", "bf16", "fp8 e4m3", …
std::string storage_name(at::ScalarType type);

}  // namespace ringlet::pipeline
