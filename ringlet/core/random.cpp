#include "ringlet/core/random.h"

#include <cmath>
#include <numbers>

namespace ringlet {
namespace {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c,
                                    std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k = {k[0] + 0x9E3779B9, k[1] + 0xBB67AE85};
  }
  return c;
}

std::uint64_t mix(std::uint64_t z) {  // splitmix64 finaliser
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

}  // namespace

RandomStream::RandomStream(std::uint64_t key, std::uint64_t stream)
    : key_{static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)},
      counter_{0, 0, static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)} {
}

std::uint64_t RandomStream::key() const {
  return static_cast<std::uint64_t>(key_[1]) << 32 | key_[0];
}

std::uint64_t RandomStream::stream() const {
  return static_cast<std::uint64_t>(counter_[3]) << 32 | counter_[2];
}

void RandomStream::refill() {
  block_ = philox(counter_, key_);
  if (++counter_[0] == 0) ++counter_[1];
  used_ = 0;
}

std::uint32_t RandomStream::next_u32() {
  if (used_ == 4) refill();
  return block_[static_cast<std::size_t>(used_++)];
}

std::uint64_t RandomStream::next_u64() {
  const std::uint64_t high = next_u32();
  return (high << 32) | next_u32();
}

double RandomStream::uniform() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }

std::uint64_t RandomStream::uniform_int(std::uint64_t n) {
  const std::uint64_t reject_below = (0 - n) % n;  // 2^64 mod n: makes every residue equally likely
  std::uint64_t draw = next_u64();
  while (draw < reject_below) draw = next_u64();
  return draw % n;
}

double RandomStream::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log1p(-uniform()));
  const double angle = 2.0 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

void RandomStream::fill_normal(std::span<float> out) {
  for (float& value : out) value = static_cast<float>(normal());
}

void RandomStream::fill_uniform(std::span<float> out) {
  for (float& value : out) value = static_cast<float>(next_u32() >> 8) * 0x1.0p-24F;
}

RandomStream Random::stream(std::string_view name, std::uint64_t step, std::uint64_t sample) const {
  std::uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a over the name, then the two numbers
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  hash = mix(hash ^ mix(step + 0x9E3779B97F4A7C15ULL));
  hash = mix(hash ^ mix(sample + 0xD1B54A32D192ED03ULL));
  return {seed_, hash};
}

}  // namespace ringlet
