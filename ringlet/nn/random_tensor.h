// Random numbers as tensors, on any device: functions of streams, equal on all of them.
#pragma once

#include <cstdint>
#include <span>

#include <ATen/core/Tensor.h>

#include "ringlet/core/random.h"

namespace ringlet::nn {

// Numbers of many streams at once. A stream of core/random.h is drawn number by number, which a
// device cannot do: there Philox's ten rounds are integer operations on tensors, some fifty for any
// number of streams and numbers.

/// What the tensor operations below need to know of streams: int64 [kStreamRows, streams], on the
/// host, to be copied to where the numbers are wanted (nn/device_copy.h).
at::Tensor stream_table(std::span<const RandomStream> streams);
inline constexpr std::int64_t kStreamRows = 37;

/// The first `count` results of next_u64() of each stream, from the beginning, whatever has been
/// drawn of it: int64 [streams, count], with the bits of the unsigned numbers, on the table's
/// device. `count` < 2^33.
at::Tensor random_words(const at::Tensor& table, std::int64_t count);

/// The first `count` numbers of fill_normal() of each stream: fp32 [streams, count]. Computed in
/// double as there; sine, cosine and logarithm are the device's own, so that the numbers may differ
/// by the rounding of their last place.
at::Tensor normal_numbers(const at::Tensor& table, std::int64_t count);

/// The same, where `table`, which is that of the streams, lies: on the CPU they are drawn one by
/// one, which is faster there, and are fill_normal()'s exactly.
at::Tensor normal_numbers(std::span<const RandomStream> streams, const at::Tensor& table,
                          std::int64_t count);

/// The same on a device that has no table yet.
at::Tensor normal_numbers(std::span<const RandomStream> streams, std::int64_t count,
                          at::Device device);

// Masks of dropout: as many numbers as activations, so that each costs some integer operations.

/// Which elements of a tensor of these sizes dropout keeps, bool, equal on all devices: element i,
/// counted along the last axis first, is dropped when piece i mod 4 (16 bits, the lowest first, as
/// a signed number) of mix(key + (i / 4) * 0x9E3779B97F4A7C15) is less than 65536 (1 -
/// kept_share(p)) - 32768. The sequence is that of SplitMix (Steele, Lea and Flood 2014) with
/// another finaliser: degski's
///     x ^= x >> 32, x *= 0xD6E8FEB86659FD93, twice, and x ^= x >> 32
/// as Wellons 2018, "Prospecting for Hash Functions", gives it, whose shifts by half a word need no
/// operation of their own on a device. Keys of different masks must be random themselves.
at::Tensor keep_mask(std::uint64_t key, at::IntArrayRef sizes, double p, at::Device device);

/// The share that keep_mask keeps: 1 - p, rounded to a multiple of 2^-16 that is not 0. What is
/// kept is divided by it. p in [0, 1).
double kept_share(double p);

/// Sixteen random bits for each of `count` numbers, int16: the pieces that keep_mask compares.
at::Tensor random_pieces(std::uint64_t key, std::int64_t count, at::Device device);

/// keep_mask by tensor operations, which it takes where the device is not the CPU.
at::Tensor keep_mask_by_operators(std::uint64_t key, at::IntArrayRef sizes, double p,
                                  at::Device device);

}  // namespace ringlet::nn
