// Vectors of the compilers' extension, and the instruction sets that one source is compiled for.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

// Everything that takes a Vector is inlined into one function for each instruction set, where the
// compiler knows how wide a vector may be.
#define RINGLET_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define RINGLET_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")))
#define RINGLET_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace ringlet::nn {

using Vector4 = float __attribute__((vector_size(16)));
using Vector8 = float __attribute__((vector_size(32)));
using Vector16 = float __attribute__((vector_size(64)));

/// The bits of the numbers of a vector.
using Bits4 = std::uint32_t __attribute__((vector_size(16)));
using Bits8 = std::uint32_t __attribute__((vector_size(32)));
using Bits16 = std::uint32_t __attribute__((vector_size(64)));
template <class Vector>
using BitsOf =
    std::conditional_t<sizeof(Vector) == sizeof(Vector4), Bits4,
                       std::conditional_t<sizeof(Vector) == sizeof(Vector8), Bits8, Bits16>>;

template <class Vector>
constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(float);

template <class Vector>
RINGLET_INLINE void load(const float* from, Vector& to) {
  std::memcpy(&to, from, sizeof(Vector));
}

template <class Vector>
RINGLET_INLINE void store(const Vector& from, float* to) {
  std::memcpy(to, &from, sizeof(Vector));
}

/// low = {a0, b0, a1, b1, …} of the lower halves of two vectors, high of the upper ones.
RINGLET_INLINE void alternate(const Vector4& a, const Vector4& b, Vector4& low, Vector4& high) {
  low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
RINGLET_INLINE void alternate(const Vector8& a, const Vector8& b, Vector8& low, Vector8& high) {
  low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
RINGLET_INLINE void alternate(const Vector16& a, const Vector16& b, Vector16& low, Vector16& high) {
  low = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  high =
      __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/// 16 rows of 16 numbers turned in place: four rounds in which halves alternate.
RINGLET_INLINE void turn(Vector16 (&rows)[16]) {
  for (int round = 0; round < 4; ++round) {
    Vector16 next[16];
    for (std::int64_t i = 0; i < 8; ++i)
      alternate(rows[i], rows[i + 8], next[2 * i], next[2 * i + 1]);
    for (int i = 0; i < 16; ++i) rows[i] = next[i];
  }
}

/// A square of 16 x 16 numbers, times s, turned: rows that are `from_stride` apart become columns.
RINGLET_INLINE void turn_square(const float* from, std::int64_t from_stride, float s, float* to,
                                std::int64_t to_stride) {
  constexpr std::int64_t kSide = kWidth<Vector16>;
  Vector16 rows[kSide];
  for (std::int64_t i = 0; i < kSide; ++i) {
    load(from + i * from_stride, rows[i]);
    rows[i] *= s;
  }
  turn(rows);
  for (std::int64_t i = 0; i < kSide; ++i) store(rows[i], to + i * to_stride);
}

enum class InstructionSet { portable, avx2, avx512 };

/// The widest that this processor has.
InstructionSet widest_instruction_set();

}  // namespace ringlet::nn
