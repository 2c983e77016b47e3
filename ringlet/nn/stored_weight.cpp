#include "ringlet/nn/stored_weight.h"

#include <algorithm>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/accumulate.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/parallel.h"

namespace ringlet::nn {

struct StoredWeight::Codes {
  WeightStorage storage;
  at::Tensor codes;   ///< [out, rest] of fp8 or int8, or [blocks, 32] bytes of nf4
  at::Tensor scales;  ///< [out, 1] or [blocks, 1], fp32
  std::vector<std::int64_t> sizes;
};

namespace {

constexpr float kLargestFp8 = 448.0F, kLargestInt8 = 127.0F;

/// The two levels of each byte of nf4.
using LevelPairs = std::array<std::array<float, 2>, 256>;

const LevelPairs& level_pairs() {
  static const LevelPairs pairs = [] {
    LevelPairs made{};
    for (std::size_t code = 0; code < made.size(); ++code)
      made[code] = {kNf4Levels[code >> 4U], kNf4Levels[code & 15U]};
    return made;
  }();
  return pairs;
}

void refuse_not_finite(const at::Tensor& scales) {
  if (!at::isfinite(scales).all().item<bool>())
    throw Error(ErrorCode::non_finite, "weight", "holds numbers that are not finite",
                "the file is damaged, or its training diverged: such weights cannot be narrowed");
}

/// Largest sizes of rows [n, 1] as what numbers are divided by; 1 for rows of zeros.
at::Tensor divisors(const at::Tensor& largest) { return at::where(largest > 0, largest, 1.0); }

at::Tensor rows_of(const at::Tensor& weight) {
  return weight.detach().reshape({weight.size(0), -1}).to(at::kFloat);
}

std::pair<at::Tensor, at::Tensor> row_codes(const at::Tensor& weight, float largest) {
  const at::Tensor rows = rows_of(weight);
  const at::Tensor scales = rows.abs().amax({1}, /*keepdim=*/true).div_(largest);
  refuse_not_finite(scales);
  at::Tensor numbers = (rows / divisors(scales)).clamp_(-largest, largest);
  if (largest == kLargestFp8) return {numbers.to(at::kFloat8_e4m3fn), scales};
  return {numbers.round_().to(at::kChar), scales};
}

std::pair<at::Tensor, at::Tensor> nf4_codes(const at::Tensor& weight) {
  const at::Tensor flat = weight.detach().reshape(-1).to(at::kFloat);
  const std::int64_t rest = flat.numel() % kNf4Block;
  const at::Tensor blocks =
      (rest == 0 ? flat : at::constant_pad_nd(flat, {0, kNf4Block - rest})).view({-1, kNf4Block});
  const at::Tensor scales = blocks.abs().amax({1}, /*keepdim=*/true);
  refuse_not_finite(scales);
  std::array<float, kNf4Levels.size() - 1> middles{};
  for (std::size_t i = 0; i < middles.size(); ++i)
    middles[i] = (kNf4Levels[i] + kNf4Levels[i + 1]) / 2;
  const at::Tensor bounds = at::empty({static_cast<std::int64_t>(middles.size())}, at::kFloat);
  std::ranges::copy(middles, bounds.data_ptr<float>());
  const at::Tensor codes = at::bucketize(blocks / divisors(scales),
                                         to_device(bounds, weight.device()), /*out_int32=*/true)
                               .view({-1, kNf4Block / 2, 2});
  return {(codes.select(2, 0) * 16 + codes.select(2, 1)).to(at::kByte), scales};
}

/// The values of e4m3: a sign, four bits of exponent biased by 7, three of mantissa. A look into
/// this table is as fast as the arithmetic is slow, which compilers do not vectorise.
using Fp8Values = std::array<float, 256>;

const Fp8Values& fp8_values() {
  static const Fp8Values values = [] {
    Fp8Values made{};
    for (std::size_t code = 0; code < made.size(); ++code)
      made[code] = static_cast<float>(
          c10::Float8_e4m3fn(static_cast<std::uint8_t>(code), c10::Float8_e4m3fn::from_bits()));
    return made;
  }();
  return values;
}

void widen_int8(const std::int8_t* from, float scale, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]) * scale;
}

void widen_fp8(const std::uint8_t* from, float scale, std::int64_t count, float* to) {
  const Fp8Values& values = fp8_values();
  for (std::int64_t i = 0; i < count; ++i) to[i] = values[from[i]] * scale;
}

/// Numbers `first` to `first + count` in the order of memory.
void widen_nf4(const std::uint8_t* codes, const float* scales, std::int64_t first,
               std::int64_t count, float* to) {
  const LevelPairs& pairs = level_pairs();
  const std::int64_t end = first + count;
  while (first < end) {
    const std::int64_t block = first / kNf4Block;
    const std::int64_t stop = std::min(end, (block + 1) * kNf4Block);
    const float scale = scales[block];
    if (first % 2 != 0) *to++ = pairs[codes[first++ / 2]][1] * scale;
    for (; first + 1 < stop; first += 2, to += 2) {
      const std::array<float, 2>& pair = pairs[codes[first / 2]];
      to[0] = pair[0] * scale;
      to[1] = pair[1] * scale;
    }
    if (first < stop) *to++ = pairs[codes[first++ / 2]][0] * scale;
  }
}

}  // namespace

StoredWeight::StoredWeight(at::Tensor tensor) : plain_(std::move(tensor)) {}

StoredWeight StoredWeight::narrowed(const at::Tensor& weight, WeightStorage storage) {
  switch (storage) {
    case WeightStorage::as_stored:
      return weight;
    case WeightStorage::fp32:
      return weight.to(at::kFloat);
    case WeightStorage::bf16:
      return weight.to(at::kBFloat16);
    default:
      break;
  }
  const at::NoGradGuard no_grad;
  auto [codes, scales] = storage == WeightStorage::nf4   ? nf4_codes(weight)
                         : storage == WeightStorage::fp8 ? row_codes(weight, kLargestFp8)
                                                         : row_codes(weight, kLargestInt8);
  StoredWeight narrow;
  narrow.codes_ = std::make_shared<const Codes>(
      Codes{storage, codes.contiguous(), std::move(scales), weight.sizes().vec()});
  return narrow;
}

WeightStorage StoredWeight::storage() const {
  return coded() ? codes_->storage : WeightStorage::as_stored;
}

at::IntArrayRef StoredWeight::sizes() const {
  return coded() ? at::IntArrayRef(codes_->sizes) : plain_.sizes();
}

std::int64_t StoredWeight::numel() const { return c10::multiply_integers(sizes()); }

at::Device StoredWeight::device() const {
  return coded() ? codes_->codes.device() : plain_.device();
}

std::size_t StoredWeight::nbytes() const {
  std::size_t bytes = 0;
  for (const at::Tensor& tensor : tensors()) bytes += tensor.nbytes();
  return bytes;
}

std::vector<at::Tensor> StoredWeight::tensors() const {
  if (coded()) return {codes_->codes, codes_->scales};
  if (plain_.defined()) return {plain_};
  return {};
}

at::Tensor StoredWeight::widened(at::ScalarType type) const {
  if (!coded()) return plain_.to(type);
  const std::int64_t out = size(0);
  if (device().is_cpu())
    return widened(type, {0, out, 0, out == 0 ? 0 : numel() / out}).view(codes_->sizes);
  const at::NoGradGuard no_grad;
  if (codes_->storage != WeightStorage::nf4)
    return codes_->codes.to(at::kFloat).mul_(codes_->scales).view(codes_->sizes).to(type);
  const LevelPairs& pairs = level_pairs();
  at::Tensor table = at::empty({static_cast<std::int64_t>(pairs.size()), 2}, at::kFloat);
  std::copy_n(pairs.front().data(), table.numel(), table.data_ptr<float>());
  const at::Tensor both =
      at::index_select(to_device(table, device()), 0, codes_->codes.view(-1).to(at::kInt));
  return both.view({-1, kNf4Block})
      .mul(codes_->scales)
      .view(-1)
      .narrow(0, 0, numel())
      .view(codes_->sizes)
      .to(type);
}

at::Tensor StoredWeight::widened(at::ScalarType type, const Part& part) const {
  if (!coded() || !device().is_cpu())
    return (coded() ? widened(type) : plain_)
        .flatten(1)
        .narrow(0, part.first_row, part.rows)
        .narrow(1, part.first_column, part.columns)
        .to(type);
  const std::int64_t width = size(0) == 0 ? 0 : numel() / size(0);
  at::Tensor wide = at::empty({part.rows, part.columns}, at::kFloat);
  float* const to = wide.data_ptr<float>();
  const auto* const codes = static_cast<const std::uint8_t*>(codes_->codes.const_data_ptr());
  const float* const scales = codes_->scales.const_data_ptr<float>();
  parallel_for(part.rows, grain_of(part.columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = part.first_row + i, first = row * width + part.first_column;
      float* const here = to + i * part.columns;
      if (codes_->storage == WeightStorage::nf4)
        widen_nf4(codes, scales, first, part.columns, here);
      else if (codes_->storage == WeightStorage::fp8)
        widen_fp8(codes + first, scales[row], part.columns, here);
      else
        widen_int8(static_cast<const std::int8_t*>(codes_->codes.const_data_ptr()) + first,
                   scales[row], part.columns, here);
    }
  });
  return wide.to(type);
}

}  // namespace ringlet::nn
