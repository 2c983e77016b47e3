#include "ringlet/pipeline/rounding.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <ATen/ops/equal.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/where.h>

#include "ringlet/core/error.h"

namespace ringlet::pipeline {
namespace {

/// A binary floating-point format.
struct Format {
  at::ScalarType type;
  const char* name;
  int digits;    ///< of the fraction, after the leading one
  int exponent;  ///< the smallest of a normal number
};

constexpr std::array kFormats = {
    Format{at::kDouble, "fp64", 52, -1022},
    Format{at::kFloat, "fp32", 23, -126},
    Format{at::kHalf, "fp16", 10, -14},
    Format{at::kBFloat16, "bf16", 7, -126},
    Format{at::kFloat8_e4m3fn, "fp8 e4m3", 3, -6},
    Format{at::kFloat8_e4m3fnuz, "fp8 e4m3fnuz", 3, -7},
    Format{at::kFloat8_e5m2, "fp8 e5m2", 2, -14},
    Format{at::kFloat8_e5m2fnuz, "fp8 e5m2fnuz", 2, -15},
    Format{at::kFloat8_e8m0fnu, "fp8 e8m0", 0, -127},
};

const Format& format_of(at::ScalarType type) {
  const auto* const found = std::ranges::find(kFormats, type, &Format::type);
  if (found == kFormats.end())
    throw Error(ErrorCode::unsupported, at::toString(type), "is not a floating-point weight type",
                "give models of floating-point weights");
  return *found;
}

/// The distance from each number to the next one of the format; numbers in fp64.
at::Tensor units(const at::Tensor& numbers, const Format& format) {
  const at::Tensor power = std::get<1>(at::frexp(numbers)).to(at::kDouble) - 1.0;
  const auto least = static_cast<double>(format.exponent);
  return at::exp2(at::where(numbers == 0.0, least, power.clamp_min(least)) -
                  static_cast<double>(format.digits));
}

double finite(double sum, const std::string& name) {
  if (!std::isfinite(sum))
    throw Error(ErrorCode::non_finite, name, "holds NaN or infinite values in one of the models",
                "the file is damaged, or its training diverged");
  return sum;
}

}  // namespace

StoredDifference compare_stored(const at::Tensor& a, at::ScalarType type_a, const at::Tensor& b,
                                at::ScalarType type_b, const std::string& name) {
  StoredDifference difference;
  if (type_a == type_b) {
    const at::Tensor gap = (a.to(at::kFloat) - b.to(at::kFloat)).to(at::kDouble);
    difference.squared = finite(gap.square().sum().item<double>(), name);
    return difference;
  }
  const Format &format_a = format_of(type_a), &format_b = format_of(type_b);
  const at::Tensor flat_a = a.reshape({-1}), flat_b = b.reshape({-1});
  bool explained = true;
  constexpr std::int64_t kPiece = 1 << 20;  // several arrays in fp64 are made of each
  for (std::int64_t first = 0; first < flat_a.numel(); first += kPiece) {
    const std::int64_t count = std::min(kPiece, flat_a.numel() - first);
    const at::Tensor one = flat_a.narrow(0, first, count).to(at::kDouble);
    const at::Tensor two = flat_b.narrow(0, first, count).to(at::kDouble);
    const at::Tensor gap = one - two;
    const double squared = finite(gap.square().sum().item<double>(), name);
    if (squared == 0.0) continue;
    const at::Tensor unit_a = units(one, format_a), unit_b = units(two, format_b);
    constexpr double kVariance = 1.0 / 12.0;  // of a number between -1/2 and 1/2
    difference.squared += squared;
    difference.rounding += std::min(
        squared, kVariance * (unit_a.square().sum() + unit_b.square().sum()).item<double>());
    explained = explained && (gap.abs() <= 0.5 * (unit_a + unit_b)).all().item<bool>();
  }
  difference.rounding_alone = explained && difference.squared > 0.0;
  return difference;
}

at::ScalarType stored_type(const at::Tensor& tensor, at::ScalarType stored) {
  if (tensor.scalar_type() == stored) return stored;
  const bool same = at::equal(tensor.to(stored).to(at::kDouble), tensor.to(at::kDouble));
  return same ? stored : tensor.scalar_type();
}

std::string storage_name(at::ScalarType type) { return format_of(type).name; }

}  // namespace ringlet::pipeline
