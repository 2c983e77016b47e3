#include "ringlet/nn/random_tensor.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/accumulate.h>

#include "ringlet/nn/device.h"
#include "ringlet/nn/parallel.h"

namespace ringlet::nn {
namespace {

static_assert(std::endian::native == std::endian::little);  // halves of words are views

constexpr std::array<std::uint64_t, 2> kMultipliers = {0xD2511F53, 0xCD9E8D57};
constexpr std::array<std::uint32_t, 2> kKeySteps = {0x9E3779B9, 0xBB67AE85};
constexpr std::int64_t kRounds = 10;
constexpr std::uint64_t kLowHalf = 0xFFFFFFFF;

// Rows of the table. Pairs come twice, so that one narrow() swaps the two.
constexpr std::int64_t kFactors = 0, kSums = 4, kSwapped = 8, kStraight = 12, kKeys = 16,
                       kMask = 36;
static_assert(kMask + 1 == kStreamRows && kKeys + 2 * kRounds == kMask);

std::int64_t as_signed(std::uint64_t word) { return static_cast<std::int64_t>(word); }

/// The two halves of int64 words [...], int32 [..., 2], the low one first: a view.
at::Tensor halves(const at::Tensor& words) {
  std::vector<std::int64_t> sizes = words.sizes().vec();
  sizes.push_back(2);
  return words.view(at::kInt).view(sizes);
}

std::array<std::int64_t, kStreamRows> table_column(const RandomStream& stream) {
  std::array<std::int64_t, kStreamRows> column{};
  const std::uint64_t low = stream.stream() & kLowHalf, high = stream.stream() >> 32;
  const auto twice = [&column](std::int64_t row, std::uint64_t first, std::uint64_t second) {
    for (std::int64_t i = 0; i < 4; ++i)
      column[static_cast<std::size_t>(row + i)] = as_signed(i % 2 == 0 ? first : second);
  };
  // The first round's products: of the counter, which counts blocks, and of the stream's low half.
  twice(kFactors, kMultipliers[0], 0);
  twice(kSums, 0, kMultipliers[1] * low);
  twice(kSwapped, kMultipliers[1], kMultipliers[0]);
  twice(kStraight, kMultipliers[0], kMultipliers[1]);
  std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(stream.key()),
                                      static_cast<std::uint32_t>(stream.key() >> 32)};
  for (std::int64_t round = 0; round < kRounds; ++round) {
    const auto even = static_cast<std::size_t>(round % 2 == 0);
    const auto row = static_cast<std::size_t>(kKeys + 2 * round);
    column[row] = key[even];
    column[row + 1] = key[1 - even];
    key = {key[0] + kKeySteps[0], key[1] + kKeySteps[1]};
  }
  column[kKeys] ^= as_signed(high);  // the first round meets the stream's high half there
  column[kMask] = as_signed(kLowHalf);
  return column;
}

/// Words 0 and 1 of the streams' blocks, each of 64 bits: int64 [2, streams, blocks].
///
/// A round takes (c0, c1, c2, c3) to (hi(p1) ^ c1 ^ k0, lo(p1), hi(p0) ^ c3 ^ k1, lo(p0)) with
/// p0 = M0 c0 and p1 = M1 c2. Here the two products are rows of one tensor. Their low halves stay
/// where they are, as the next round's c1 and c3, and the high ones become c0 and c2 in place; the
/// order of the rows changes with each round.
at::Tensor philox_blocks(const at::Tensor& table, std::int64_t blocks) {
  const std::int64_t streams = table.size(1);
  const auto rows = [&](std::int64_t first, std::int64_t count) {
    return table.narrow(0, first, count).unsqueeze(-1);
  };
  const at::Tensor keys = halves(table).select(2, 0);
  at::Tensor products =
      at::addcmul(rows(kSums, 4), rows(kFactors, 4),
                  at::arange(blocks, at::TensorOptions(at::kLong).device(table.device())));
  at::Tensor before;  // the low halves of the round before
  for (std::int64_t round = 0;; ++round) {
    const at::Tensor both = halves(products);
    const at::Tensor high = both.select(3, 1).narrow(0, 0, 2);
    if (before.defined()) high.bitwise_xor_(before.narrow(0, 1, 2));
    high.bitwise_xor_(keys.narrow(0, kKeys + 2 * round, 2).unsqueeze(-1));
    if (round == kRounds - 1) return products.narrow(0, 0, 2);
    before = both.select(3, 0);
    const at::Tensor factors = rows(round % 2 == 0 ? kSwapped : kStraight, 4);
    products = at::mul(at::bitwise_and(high, rows(kMask, 1)), factors.view({2, 2, streams, 1}))
                   .view({4, streams, blocks});
  }
}

std::uint64_t mixed(std::uint64_t x) {
  constexpr std::uint64_t kFactor = 0xD6E8FEB86659FD93;
  x = (x ^ (x >> 32)) * kFactor;
  x = (x ^ (x >> 32)) * kFactor;
  return x ^ (x >> 32);
}

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;
constexpr std::int64_t kPieces = 4;  // of a word

/// How many of the 65536 values of a piece mean that an element is dropped.
std::int32_t dropped_values(double p) {
  return static_cast<std::int32_t>(std::clamp(std::round(p * 65536.0), 0.0, 65535.0));
}

/// Pieces are compared as signed numbers, since tensors have no unsigned ones: both ends move.
std::int16_t least_kept(double p) { return static_cast<std::int16_t>(dropped_values(p) - 32768); }

}  // namespace

at::Tensor stream_table(std::span<const RandomStream> streams) {
  const auto count = static_cast<std::int64_t>(streams.size());
  at::Tensor table = at::empty({kStreamRows, count}, at::kLong);
  auto* numbers = table.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto column = table_column(streams[static_cast<std::size_t>(i)]);
    for (std::int64_t row = 0; row < kStreamRows; ++row)
      numbers[row * count + i] = column[static_cast<std::size_t>(row)];
  }
  return table;
}

at::Tensor random_words(const at::Tensor& table, std::int64_t count) {
  const std::int64_t blocks = (count + 1) / 2;
  return philox_blocks(table, blocks)
      .permute({1, 2, 0})
      .reshape({table.size(1), 2 * blocks})
      .narrow(1, 0, count);
}

at::Tensor normal_numbers(const at::Tensor& table, std::int64_t count) {
  const std::int64_t blocks = (count + 1) / 2;
  constexpr std::int64_t kDigits = (std::int64_t{1} << 53) - 1;
  // 2^53 times the two uniform numbers of each block.
  const at::Tensor uniform = at::bitwise_right_shift(philox_blocks(table, blocks), 11)
                                 .bitwise_and_(kDigits)
                                 .to(at::kDouble);
  const at::Tensor radius = uniform[0].mul_(-0x1p-53).log1p_().mul_(-2.0).sqrt_();
  const at::Tensor angle = uniform[1].mul_(2.0 * std::numbers::pi * 0x1p-53);
  const at::Tensor numbers =
      at::empty({table.size(1), blocks, 2}, at::TensorOptions(at::kFloat).device(table.device()));
  at::Tensor cosines = numbers.select(2, 0), sines = numbers.select(2, 1);
  at::mul_out(cosines, radius, angle.cos());
  at::mul_out(sines, radius, angle.sin());
  return numbers.view({table.size(1), 2 * blocks}).narrow(1, 0, count);
}

at::Tensor normal_numbers(std::span<const RandomStream> streams, const at::Tensor& table,
                          std::int64_t count) {
  if (!table.is_cpu()) return normal_numbers(table, count);
  at::Tensor numbers = at::empty({static_cast<std::int64_t>(streams.size()), count}, at::kFloat);
  auto* next = numbers.data_ptr<float>();
  for (const RandomStream& stream : streams) {
    RandomStream(stream.key(), stream.stream())
        .fill_normal({next, static_cast<std::size_t>(count)});
    next += count;
  }
  return numbers;
}

at::Tensor normal_numbers(std::span<const RandomStream> streams, std::int64_t count,
                          at::Device device) {
  return normal_numbers(streams, to_device(stream_table(streams), device), count);
}

double kept_share(double p) { return 1.0 - dropped_values(p) / 65536.0; }

at::Tensor keep_mask(std::uint64_t key, at::IntArrayRef sizes, double p, at::Device device) {
  if (!device.is_cpu()) return keep_mask_by_operators(key, sizes, p, device);
  at::Tensor mask = at::empty(sizes, at::kBool);
  const std::int64_t count = mask.numel();
  auto* kept = mask.data_ptr<bool>();
  const std::int16_t least = least_kept(p);
  parallel_for((count + kPieces - 1) / kPieces, grain_of(kPieces),
               [&](std::int64_t from, std::int64_t to) {
                 for (std::int64_t i = from; i < to; ++i) {
                   std::uint64_t word = mixed(key + static_cast<std::uint64_t>(i) * kGolden);
                   const std::int64_t end = std::min(count, kPieces * (i + 1));
                   for (std::int64_t element = kPieces * i; element < end; ++element, word >>= 16)
                     kept[element] = static_cast<std::int16_t>(word) >= least;
                 }
               });
  return mask;
}

at::Tensor random_pieces(std::uint64_t key, std::int64_t count, at::Device device) {
  constexpr std::int64_t kFactor = static_cast<std::int64_t>(0xD6E8FEB86659FD93);
  // A host tensor without dimensions is an argument of the kernel, not a copy.
  const at::Tensor words = at::add(
      at::scalar_tensor(as_signed(key), at::kLong),
      at::arange((count + kPieces - 1) / kPieces, at::TensorOptions(at::kLong).device(device)),
      as_signed(kGolden));
  const at::Tensor both = halves(words);
  const at::Tensor low = both.select(1, 0), high = both.select(1, 1);
  low.bitwise_xor_(high);
  words.mul_(kFactor);
  low.bitwise_xor_(high);
  words.mul_(kFactor);
  low.bitwise_xor_(high);
  return words.view(at::kShort).narrow(0, 0, count);
}

at::Tensor keep_mask_by_operators(std::uint64_t key, at::IntArrayRef sizes, double p,
                                  at::Device device) {
  return random_pieces(key, c10::multiply_integers(sizes), device).ge(least_kept(p)).view(sizes);
}

}  // namespace ringlet::nn
