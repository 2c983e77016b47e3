// What a group of workers with common memory does with tiles of a ring (ring_chain.h): a block of
// threads on a device, one thread on the host, where its tests run.
#pragma once

#include <cstdint>

#include "ringlet/adapt/kernels/ring_chain.h"

namespace ringlet::adapt::ring_workers {

/// One of `count` workers: takes every count-th piece of work from `first` on.
struct Worker {
  std::int64_t first, count;

  /// Until all of them are here.
  RINGLET_HOST_DEVICE void wait() const {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }

  RINGLET_HOST_DEVICE void multiply(const nn::Product& c) const {
    const std::int64_t rows = c.out_rows.count, all = c.in_batch.count * rows * c.width;
    for (std::int64_t i = first; i < all; i += count) {
      const std::int64_t n = i % c.width, m = i / c.width % rows, b = i / c.width / rows;
      const float* const in = c.in + c.in_batch.at(b) + n;
      float* const out = c.out + c.out_batch.at(b) + c.out_rows.at(m) + n;
      float sum = c.add ? *out : 0.0F;
      for (std::int64_t k = 0; k < c.in_rows.count; ++k)
        sum += c.a[m * c.a_row + k * c.a_column] * in[c.in_rows.at(k)];
      *out = sum;
    }
  }

  RINGLET_HOST_DEVICE void add_dots(const nn::DotProducts& c) const {
    for (std::int64_t i = first; i < c.p_rows.count * c.q_rows.count; i += count) {
      const std::int64_t m = i / c.q_rows.count, k = i % c.q_rows.count;
      float sum = 0.0F;
      for (std::int64_t b = 0; b < c.p_batch.count; ++b) {
        const float* const p = c.p + c.p_batch.at(b) + c.p_rows.at(m);
        const float* const q = c.q + c.q_batch.at(b) + c.q_rows.at(k);
        for (std::int64_t n = 0; n < c.width; ++n) sum += p[n] * q[n];
      }
      c.out[m * c.out_row + k * c.out_column] += sum;
    }
  }
};

/// The operands of a call: rows of `width` numbers that lie together, cores [f, f, R, R].
struct Operands {
  RingChain ring;
  bool transposed;
  std::int64_t rows, width;
  const float* cores[3];
  const float *x, *dy;  ///< dy of the backward pass
  float* y;             ///< or dx; null where it is not asked for
  float* sums;          ///< [groups, parameters] of the backward pass, packed; null likewise
};

/// Numbers of the workers' common memory.
RINGLET_HOST_DEVICE inline std::int64_t memory_of(const RingChain& ring, bool backward) {
  const std::int64_t tile = ring.width() * ring.lanes;
  return backward ? 2 * ring.parameters() + 3 * tile + 4 * ring.scratch()
                  : ring.parameters() + 2 * tile + 2 * ring.scratch();
}

/// `ring` with as many vectors in a tile as the memory has room for; lanes = 0 where one is too
/// many.
RINGLET_HOST_DEVICE inline RingChain fitted(RingChain ring, std::int64_t memory, bool backward) {
  ring.block = 1;
  for (ring.lanes = 8; ring.lanes > 0; ring.lanes /= 2)
    if (memory_of(ring, backward) <= memory) break;
  return ring;
}

RINGLET_HOST_DEVICE inline void load_cores(const Operands& c, float* packed, const Worker& run) {
  for (int core = 0; core < 3; ++core)
    for (std::int64_t i = run.first; i < c.ring.size(core); i += run.count)
      packed[c.ring.begin(core) + packed_place(c.ring, core, i, c.transposed)] = c.cores[core][i];
}

/// tile [ring.width(), lanes] of rows from `begin` on; zeros beyond what there is.
RINGLET_HOST_DEVICE inline void load_tile(const Operands& c, const float* rows, std::int64_t begin,
                                          float* tile, const Worker& run) {
  const std::int64_t padded = c.ring.width(), lanes = c.ring.lanes;
  for (std::int64_t i = run.first; i < padded * lanes; i += run.count) {
    const std::int64_t lane = i / padded, j = i % padded;  // neighbours read neighbours
    const bool there = begin + lane < c.rows && j < c.width;
    tile[j * lanes + lane] = there ? rows[(begin + lane) * c.width + j] : 0.0F;
  }
}

RINGLET_HOST_DEVICE inline void store_tile(const Operands& c, const float* tile, std::int64_t begin,
                                           float* rows, const Worker& run) {
  for (std::int64_t i = run.first; i < c.width * c.ring.lanes; i += run.count) {
    const std::int64_t lane = i / c.width, j = i % c.width;
    if (begin + lane < c.rows) rows[(begin + lane) * c.width + j] = tile[j * c.ring.lanes + lane];
  }
}

/// The part of group `group` of `groups`: y of every groups-th tile.
RINGLET_HOST_DEVICE inline void forward(const Operands& c, std::int64_t group, std::int64_t groups,
                                        float* memory, Worker run) {
  const std::int64_t tile = c.ring.width() * c.ring.lanes;
  float *const cores = memory, *const in = cores + c.ring.parameters(), *const out = in + tile,
               *const z = out + tile, *const w = z + c.ring.scratch();
  load_cores(c, cores, run);
  for (std::int64_t begin = group * c.ring.lanes; begin < c.rows; begin += groups * c.ring.lanes) {
    load_tile(c, c.x, begin, in, run);
    run.wait();
    ring_chain::forward(c.ring, cores, in, out, z, w, run);
    store_tile(c, out, begin, c.y, run);
    run.wait();
  }
}

/// The same of dx, and the sum of its tiles' gradients of the cores.
RINGLET_HOST_DEVICE inline void backward(const Operands& c, std::int64_t group, std::int64_t groups,
                                         float* memory, Worker run) {
  const std::int64_t tile = c.ring.width() * c.ring.lanes, size = c.ring.scratch();
  const std::int64_t parameters = c.ring.parameters();
  float *const cores = memory, *const dcores = cores + parameters, *const in = dcores + parameters,
               *const out = in + tile, *const back = out + tile, *const z = back + tile,
               *const w = z + size, *const dz = w + size, *const dw = dz + size;
  load_cores(c, cores, run);
  for (std::int64_t i = run.first; i < parameters; i += run.count) dcores[i] = 0.0F;
  for (std::int64_t begin = group * c.ring.lanes; begin < c.rows; begin += groups * c.ring.lanes) {
    if (c.sums != nullptr) load_tile(c, c.x, begin, in, run);
    load_tile(c, c.dy, begin, out, run);
    run.wait();
    const ring_chain::Gradients gradients = {in, out, c.y != nullptr ? back : nullptr,
                                             c.sums != nullptr ? dcores : nullptr};
    ring_chain::backward(c.ring, cores, gradients, z, w, dz, dw, run);
    if (c.y != nullptr) store_tile(c, back, begin, c.y, run);
    run.wait();
  }
  if (c.sums == nullptr) return;
  for (std::int64_t i = run.first; i < parameters; i += run.count)
    c.sums[group * parameters + i] = dcores[i];
}

/// Number `i` of a core's gradient: the groups' sums, one after the other.
RINGLET_HOST_DEVICE inline float summed(const Operands& c, int core, std::int64_t i,
                                        std::int64_t groups) {
  const std::int64_t place = c.ring.begin(core) + packed_place(c.ring, core, i, c.transposed);
  float sum = 0.0F;
  for (std::int64_t group = 0; group < groups; ++group)
    sum += c.sums[group * c.ring.parameters() + place];
  return sum;
}

}  // namespace ringlet::adapt::ring_workers
