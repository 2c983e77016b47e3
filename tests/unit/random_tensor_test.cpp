// Random numbers by tensor operations against the streams that they stand for, and dropout's masks.
#include "ringlet/nn/random_tensor.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/nn/device_copy.h"

namespace ringlet::nn {
namespace {

/// Streams whose keys and numbers have bits everywhere, and the extremes.
std::vector<RandomStream> streams_of(std::size_t count) {
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  std::vector<RandomStream> streams = {{0, 0}, {kAll, kAll}, {1ULL << 63, 1}, {1, 1ULL << 32}};
  for (std::uint64_t i = 0; streams.size() < count; ++i)
    streams.push_back(Random(0x9E3779B97F4A7C15 * i).stream("noise", i, i % 3));
  streams.resize(count, {0, 0});
  return streams;
}

TEST(RandomTensor, WordsAreThoseOfTheStreams) {
  for (const std::size_t count : {1U, 2U, 5U, 40U})
    for (const std::int64_t length : {1, 2, 3, 17, 256}) {
      std::vector<RandomStream> streams = streams_of(count);
      const at::Tensor table = stream_table(streams);
      streams.front().next_u32();  // the table does not depend on what has been drawn
      EXPECT_TRUE(stream_table(streams).equal(table));
      const at::Tensor words = random_words(table, length).contiguous();
      ASSERT_EQ(words.sizes(), (at::IntArrayRef{static_cast<std::int64_t>(count), length}));
      const auto* word = words.const_data_ptr<std::int64_t>();
      for (RandomStream stream : streams_of(count))
        for (std::int64_t i = 0; i < length; ++i)
          ASSERT_EQ(static_cast<std::uint64_t>(*word++), stream.next_u64()) << count << " " << i;
    }
}

/// How many floats apart two numbers are.
std::int64_t floats_between(float a, float b) {
  const auto place = [](float x) {
    const std::int64_t bits = std::bit_cast<std::uint32_t>(std::abs(x));
    return x < 0.0F ? -bits : bits;
  };
  return std::abs(place(a) - place(b));
}

TEST(RandomTensor, NormalNumbersAreThoseOfTheStreamsToTheLastPlace) {
  for (const std::size_t count : {1U, 3U, 24U})
    for (const std::int64_t length : {1, 2, 7, 1024}) {
      const std::vector<RandomStream> streams = streams_of(count);
      const at::Tensor table = stream_table(streams);
      const at::Tensor drawn = normal_numbers(streams, table, length);
      const at::Tensor computed = normal_numbers(table, length).contiguous();
      ASSERT_EQ(computed.sizes(), drawn.sizes());
      EXPECT_TRUE(normal_numbers(streams, length, at::kCPU).equal(drawn));
      const auto *a = drawn.const_data_ptr<float>(), *b = computed.const_data_ptr<float>();
      std::int64_t different = 0;
      std::vector<float> filled(static_cast<std::size_t>(length));
      for (RandomStream stream : streams_of(count)) {
        stream.fill_normal(filled);
        for (const float number : filled) {
          ASSERT_EQ(number, *a++);
          const std::int64_t apart = floats_between(number, *b++);
          ASSERT_LE(apart, 1);
          different += apart;
        }
      }
      // Two doubles that differ in their last place round to different floats once in 2^28.
      EXPECT_LE(different, 1);
    }
}

/// +1 where the mask keeps, -1 where not, for p = 0.5.
at::Tensor signs(std::uint64_t key, std::int64_t count) {
  return keep_mask(key, {count}, 0.5, at::kCPU).to(at::kFloat).mul_(2.0).sub_(1.0);
}

TEST(KeepMask, IsTheSameByOperators) {
  for (const std::uint64_t key : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{12345678901}})
    for (const double p : {0.0, 1e-9, 0.1, 0.5, 0.9999, 0.9999999})
      for (const std::vector<std::int64_t>& sizes :
           {std::vector<std::int64_t>{1}, {2, 3, 5}, {4}, {0}, {3, 7, 1000}}) {
        const at::Tensor mask = keep_mask(key, sizes, p, at::kCPU);
        EXPECT_EQ(mask.scalar_type(), at::kBool);
        EXPECT_EQ(mask.sizes(), at::IntArrayRef(sizes));
        EXPECT_TRUE(mask.equal(keep_mask_by_operators(key, sizes, p, at::kCPU))) << key << " " << p;
        EXPECT_TRUE(p > 1e-6 || mask.all().item<bool>());
      }
  // The documented numbers, from the formula by hand.
  const auto mix = [](std::uint64_t x) {
    for (int i = 0; i < 2; ++i) x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93;
    return x ^ (x >> 32);
  };
  const at::Tensor mask = keep_mask(77, {1001}, 0.25, at::kCPU);
  for (std::uint64_t i = 0; i < 1001; ++i)
    EXPECT_EQ(mask[static_cast<std::int64_t>(i)].item<bool>(),
              static_cast<std::int16_t>(mix(77 + (i / 4) * 0x9E3779B97F4A7C15) >> (16 * (i % 4))) >=
                  16384 - 32768);
}

constexpr std::int64_t kMany = 1 << 20;

// Five standard errors throughout; keys are fixed, so that nothing flickers.
TEST(KeepMask, KeepsItsShare) {
  for (const double p : {0.01, 0.1, 0.3, 0.5, 0.9})
    for (std::uint64_t step = 0; step < 3; ++step) {
      const at::Tensor mask =
          keep_mask(Random(1).stream("layer", step).next_u64(), {kMany}, p, at::kCPU);
      const double share = static_cast<double>(mask.sum().item<std::int64_t>()) / kMany;
      const double deviation = std::sqrt(p * (1.0 - p) / kMany);
      EXPECT_NEAR(share, kept_share(p), 5 * deviation) << p;
      EXPECT_NEAR(kept_share(p), 1.0 - p, 1.0 / 131072 + 1e-12);
      // In each place of a word, too: every piece has other bits.
      for (std::int64_t piece = 0; piece < 4; ++piece)
        EXPECT_NEAR(mask.slice(0, piece, kMany, 4).to(at::kDouble).mean().item<double>(),
                    kept_share(p), 10 * deviation);
    }
}

// A mask at threshold 2^b sees bit b of the pieces only through those above it; all of them at once
// are the pieces' values, read here by bisection of thresholds.
TEST(KeepMask, EveryBitOfItsNumbersIsBalanced) {
  constexpr std::int64_t kCount = 1 << 17;
  at::Tensor value = at::zeros({kCount}, at::kLong);
  const std::uint64_t key = Random(2).stream("layer").next_u64();
  for (std::int64_t t = 1; t < 256; ++t)  // the upper eight bits
    value += keep_mask(key, {kCount}, static_cast<double>(t) / 256.0, at::kCPU);
  for (std::int64_t bit = 0; bit < 8; ++bit) {
    const at::Tensor of_bit = at::bitwise_and(at::bitwise_right_shift(value, bit), 1);
    EXPECT_NEAR(of_bit.to(at::kDouble).mean().item<double>(), 0.5, 2.5 / std::sqrt(kCount)) << bit;
  }
}

TEST(KeepMask, NeighboursLayersAndStepsAreIndependent) {
  const double error = 5.0 / std::sqrt(static_cast<double>(kMany));
  const auto mean_product = [](const at::Tensor& a, const at::Tensor& b) {
    return a.mul(b).to(at::kDouble).mean().item<double>();
  };
  const auto key = [](const char* layer, std::uint64_t step) {
    return Random(3).stream(layer, step).next_u64();
  };
  const at::Tensor here = signs(key("a", 1), kMany);
  // Along rows, and between rows of usual widths.
  for (const std::int64_t lag : {1, 2, 3, 4, 5, 7, 8, 64, 320, 640, 1280, 4096})
    EXPECT_NEAR(mean_product(here.narrow(0, 0, kMany - lag), here.narrow(0, lag, kMany - lag)), 0.0,
                error)
        << lag;
  for (std::uint64_t step = 2; step < 10; ++step)
    EXPECT_NEAR(mean_product(here, signs(key("a", step), kMany)), 0.0, error) << step;
  for (const char* layer : {"b", "c", "ab", "b.a"})
    EXPECT_NEAR(mean_product(here, signs(key(layer, 1), kMany)), 0.0, error) << layer;
}

TEST(DeviceCopy, ToTheCpuIsNoCopy) {
  const std::vector<at::Tensor> host = {at::ones({2, 3}), at::arange(5), at::empty({0})};
  const std::vector<at::Tensor> there = to_device(host, at::kCPU);
  for (std::size_t i = 0; i < host.size(); ++i) EXPECT_TRUE(there[i].is_same(host[i]));
}

}  // namespace
}  // namespace ringlet::nn
