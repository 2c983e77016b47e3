#include "ringlet/core/random.h"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace ringlet {
namespace {

std::vector<std::uint32_t> words(RandomStream stream, std::size_t count) {
  std::vector<std::uint32_t> out(count);
  for (std::uint32_t& word : out) word = stream.next_u32();
  return out;
}

using Words = std::vector<std::uint32_t>;

// The zero vector is in the Random123 distribution (kat_vectors, philox4x32 10). Its other two set
// counter words that a stream reaches only after 2^32 blocks; the rows below come from an
// independent implementation that reproduces all three.
TEST(Random, PhiloxKnownAnswers) {
  EXPECT_EQ(words({0, 0}, 4), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint64_t kAll = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(words({kAll, kAll}, 4), (Words{0x3d3be307, 0x716983d6, 0x70094bed, 0x36c3cf91}));
  EXPECT_EQ(words({0x299f31d0a4093822, 0x0370734413198a2e}, 8),
            (Words{0xb60a410e, 0x61bd7780, 0xa53f3958, 0x3d51eb3f, 0x314ddb4b, 0x0ab83527,
                   0x9fc3cabe, 0x3fc8cf4c}));
}

// Seeds are shared between people and kept in pictures: these numbers must never change.
TEST(Random, NamedStreamsArePinned) {
  EXPECT_EQ(words(Random(42).stream("latents"), 4),
            (Words{0x19edbc0e, 0x520e7426, 0x90c47088, 0x701341f9}));
  EXPECT_EQ(words(Random(42).stream("sampler", 3, 7), 4),
            (Words{0x1abe33e8, 0x5c980572, 0x5474d54d, 0x2eba6081}));
  EXPECT_EQ(words(Random((1ULL << 63) + 5).stream("x", 1, 2), 4),
            (Words{0x09bcf1fb, 0x22a7af84, 0x58459194, 0xd18262cf}));
}

TEST(Random, DerivedNumbersArePinned) {
  const Random random(42);
  RandomStream uniform = random.stream("latents");
  EXPECT_EQ(uniform.uniform(), 0.10128379201528914);
  EXPECT_EQ(uniform.uniform(), 0.5654974301433642);
  // Sine, cosine and logarithm may differ in the last place between C libraries.
  RandomStream normal = random.stream("latents");
  for (const double want :
       {-0.42355795225972015, -0.1848637341225614, -0.6529275413895509, -0.04889566081400597})
    EXPECT_NEAR(normal.normal(), want, 1e-15);
  std::vector<float> filled(2);
  random.stream("latents").fill_normal(filled);
  EXPECT_FLOAT_EQ(filled[0], -0.42355795F);
  EXPECT_FLOAT_EQ(filled[1], -0.18486373F);
  random.stream("latents").fill_uniform(filled);
  EXPECT_EQ(filled[0], static_cast<float>(0x19edbc) * 0x1.0p-24F);
  EXPECT_EQ(random.stream("latents").next_u64(), 0x19edbc0e520e7426U);
}

TEST(Random, StreamsRepeatAndDifferInEveryPart) {
  const auto first = [](std::uint64_t seed, const char* name, std::uint64_t step,
                        std::uint64_t sample) {
    return words(Random(seed).stream(name, step, sample), 4);
  };
  EXPECT_EQ(first(1, "noise", 2, 3), first(1, "noise", 2, 3));
  std::set<Words> seen;
  std::size_t count = 0;
  for (const std::uint64_t seed : {0ULL, 1ULL, 1ULL << 32, ~0ULL})
    for (const char* name : {"", "a", "noise", "noisf"})
      for (std::uint64_t step = 0; step < 8; ++step)
        for (std::uint64_t sample = 0; sample < 8; ++sample, ++count)
          seen.insert(first(seed, name, step, sample));
  EXPECT_EQ(seen.size(), count);  // in particular (step, sample) is not (sample, step)
}

TEST(Random, UniformFillsTheHalfOpenInterval) {
  RandomStream stream = Random(3).stream("u");
  double sum = 0.0, squares = 0.0, low = 1.0, high = 0.0;
  constexpr int kCount = 100000;
  for (int i = 0; i < kCount; ++i) {
    const double u = stream.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
    low = std::min(low, u);
    high = std::max(high, u);
  }
  // Five standard errors; the seed is fixed, so this cannot flicker.
  EXPECT_NEAR(sum / kCount, 0.5, 5 * 0.2887 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1.0 / 3.0, 5 * 0.2981 / std::sqrt(kCount));
  EXPECT_LT(low, 1e-4);
  EXPECT_GT(high, 1.0 - 1e-4);
}

TEST(Random, NormalHasTheMomentsOfTheNormalDistribution) {
  RandomStream stream = Random(4).stream("n");
  constexpr int kCount = 200000;
  double m1 = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0, neighbours = 0.0, before = 0.0;
  for (int i = 0; i < kCount; ++i) {
    const double z = stream.normal();
    ASSERT_TRUE(std::isfinite(z));
    m1 += z;
    m2 += z * z;
    m3 += z * z * z;
    m4 += z * z * z * z;
    neighbours += z * before;  // the two halves of Box-Muller are independent
    before = z;
  }
  const double error = 5.0 / std::sqrt(kCount);
  EXPECT_NEAR(m1 / kCount, 0.0, error);
  EXPECT_NEAR(m2 / kCount, 1.0, error * std::sqrt(2.0));
  EXPECT_NEAR(m3 / kCount, 0.0, error * std::sqrt(15.0));
  EXPECT_NEAR(m4 / kCount, 3.0, error * std::sqrt(96.0));
  EXPECT_NEAR(neighbours / kCount, 0.0, error);
}

// Different steps and samples are different keys of one hash: their numbers must not correlate.
TEST(Random, NeighbouringStreamsAreIndependent) {
  const Random random(5);
  constexpr int kCount = 20000;
  double by_step = 0.0, by_sample = 0.0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double here = random.stream("n", i, i).normal();
    by_step += here * random.stream("n", i + 1, i).normal();
    by_sample += here * random.stream("n", i, i + 1).normal();
  }
  EXPECT_NEAR(by_step / kCount, 0.0, 5.0 / std::sqrt(kCount));
  EXPECT_NEAR(by_sample / kCount, 0.0, 5.0 / std::sqrt(kCount));
}

TEST(Random, UniformIntIsUnbiased) {
  for (const std::uint64_t n : {1ULL, 2ULL, 3ULL, 7ULL, 10ULL}) {
    RandomStream stream = Random(6).stream("int", n);
    std::vector<int> counts(n);
    constexpr int kCount = 70000;
    for (int i = 0; i < kCount; ++i) ++counts.at(stream.uniform_int(n));
    const double p = 1.0 / static_cast<double>(n);
    for (const int count : counts)
      EXPECT_NEAR(count, kCount * p, 5 * std::sqrt(kCount * p * (1 - p)) + 1e-9) << n;
  }
}

// With n = 3 * 2^62 a plain remainder would draw the lower third twice as often as the rest.
TEST(Random, UniformIntIsUnbiasedNearTheTop) {
  constexpr std::uint64_t kThird = 1ULL << 62;
  RandomStream stream = Random(7).stream("int");
  std::vector<int> counts(3);
  constexpr int kCount = 30000;
  for (int i = 0; i < kCount; ++i) ++counts.at(stream.uniform_int(3 * kThird) / kThird);
  for (const int count : counts) EXPECT_NEAR(count, kCount / 3, 5 * std::sqrt(kCount * 2.0 / 9.0));
}

}  // namespace
}  // namespace ringlet
