// Stateless random numbers: every draw is a function of (seed, stream name, step, sample index).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace ringlet {

/// A counter-based stream (Philox 4x32-10; Salmon et al., "Parallel Random Numbers: As Easy as
/// 1, 2, 3", SC 2011). Two streams with the same key give the same numbers on every machine.
class RandomStream {
 public:
  RandomStream(std::uint64_t key, std::uint64_t stream);

  /// What it was made from, whatever has been drawn.
  std::uint64_t key() const;
  std::uint64_t stream() const;

  std::uint32_t next_u32();
  std::uint64_t next_u64();
  double uniform();                            ///< in [0, 1), 53 bits
  std::uint64_t uniform_int(std::uint64_t n);  ///< in [0, n), unbiased; n > 0
  double normal();                             ///< N(0, 1), Box-Muller in double
  void fill_normal(std::span<float> out);      ///< N(0, 1)
  void fill_uniform(std::span<float> out);     ///< [0, 1)

 private:
  void refill();

  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;
  double spare_ = 0.0;
  bool has_spare_ = false;
};

/// Entry point: `Random(seed).stream("noise", step, sample)`.
class Random {
 public:
  explicit Random(std::uint64_t seed) : seed_(seed) {}
  RandomStream stream(std::string_view name, std::uint64_t step = 0,
                      std::uint64_t sample = 0) const;
  std::uint64_t seed() const { return seed_; }

 private:
  std::uint64_t seed_;
};

}  // namespace ringlet
