// T x of a tensor-ring matrix with three cores, core by core, and its derivatives: one program for
// every device.
//
//     z[i3, c, a3 | j2, j1] = sum_j3           A3[i3, j3, a3, c] x[j3, j2, j1]
//     w[i3, c | i2, a2, j1] = sum_(a3, j2)     A2[i2, j2, a2, a3] z[i3, c, a3 | j2, j1]
//     y[i3, i2, i1]         = sum_(c, a2, j1)  A1[i1, j1, c, a2] w[i3, c | i2, a2, j1]
//
// Each line is a product of small matrices as its operands lie in memory, so that nothing is laid
// out anew in between. z and w are made for some i3 at a time, of a tile of vectors whose numbers
// lie side by side, and stay in the fastest memory. The backward pass makes them again.
//
// The program says which products come in which order. Who computes them is its argument `Run`,
// with multiply(Product), add_dots(DotProducts) and, between lines, wait().
#pragma once

#include <cstdint>

#include "ringlet/nn/strided.h"

namespace ringlet::adapt {

/// Sizes of a ring of square modes and of the tiles that it is applied to.
struct RingChain {
  std::int64_t f1, f2, f3;  ///< modes, the fastest first
  std::int64_t rank;
  std::int64_t lanes;  ///< vectors in a tile
  std::int64_t block;  ///< i3 at a time

  RINGLET_HOST_DEVICE std::int64_t width() const { return f1 * f2 * f3; }
  RINGLET_HOST_DEVICE std::int64_t bonds() const { return rank * rank; }
  /// Numbers of z, and of w.
  RINGLET_HOST_DEVICE std::int64_t scratch() const { return block * bonds() * f1 * f2 * lanes; }
  RINGLET_HOST_DEVICE std::int64_t size(int core) const {
    const std::int64_t f = core == 0 ? f1 : core == 1 ? f2 : f3;
    return f * f * bonds();
  }
  /// Of all cores.
  RINGLET_HOST_DEVICE std::int64_t parameters() const { return size(0) + size(1) + size(2); }
  /// Where a core begins among the packed ones.
  RINGLET_HOST_DEVICE std::int64_t begin(int core) const {
    return core == 0 ? 0 : core == 1 ? size(0) : size(0) + size(1);
  }
};

/// Where number (i, j, a, b) of a core is among its packed ones, by what each index adds. They are
/// in the order of the lines above: A1 [i1][c, a2, j1], A2 [i2, a2][a3, j2], A3 [i3, c, a3][j3].
struct PackedPlaces {
  std::int64_t i, j, a, b;
};

/// Those of a core of T, or of T's transpose.
RINGLET_HOST_DEVICE inline PackedPlaces packed_places(const RingChain& ring, int core,
                                                      bool transposed) {
  const std::int64_t f = core == 0 ? ring.f1 : core == 1 ? ring.f2 : ring.f3, r = ring.rank;
  const std::int64_t row = r * r * f;
  const std::int64_t slow = r * f, fast = f;
  return {transposed ? 1 : row, transposed ? row : 1, core == 2 ? fast : slow,
          core == 2 ? slow : fast};
}

/// The same of the n-th number of a core [f, f, R, R].
RINGLET_HOST_DEVICE inline std::int64_t packed_place(const RingChain& ring, int core,
                                                     std::int64_t n, bool transposed) {
  const std::int64_t f = core == 0 ? ring.f1 : core == 1 ? ring.f2 : ring.f3, r = ring.rank;
  const PackedPlaces step = packed_places(ring, core, transposed);
  return n / (r * r * f) * step.i + n / (r * r) % f * step.j + n / r % r * step.a + n % r * step.b;
}

namespace ring_chain {

using nn::DotProducts;
using nn::Places;
using nn::Product;

/// The rows (c, a2, j1) of w for a given i3 and i2, and (i3, i2) of w and y.
struct LastLine {
  Places rows, batch, out_batch;
};

RINGLET_HOST_DEVICE inline LastLine last_line(const RingChain& g, std::int64_t count) {
  const std::int64_t inner = g.rank * g.f1 * g.lanes;  // (a2, j1)
  return {{g.bonds() * g.f1, g.rank * g.f1, g.f2 * inner, g.lanes},
          {count * g.f2, g.f2, g.rank * g.f2 * inner, inner},
          Places::even(count * g.f2, g.f1 * g.lanes)};
}

/// z and w of i3 in [first, first + count).
template <class Run>
RINGLET_HOST_DEVICE void first_lines(const RingChain& g, const float* cores, const float* x,
                                     std::int64_t first, std::int64_t count, float* z, float* w,
                                     Run& run) {
  const std::int64_t plane = g.f1 * g.f2 * g.lanes, line = g.f1 * g.lanes;
  const std::int64_t rows = count * g.bonds(), inner = g.rank * g.f2;
  const float* a3 = cores + g.begin(2) + first * g.bonds() * g.f3;
  run.multiply({a3,
                g.f3,
                1,
                x,
                Places::even(g.f3, plane),
                {},
                z,
                Places::even(rows, plane),
                {},
                plane,
                false});
  run.wait();
  const Places batch = Places::even(count * g.rank, inner * line);
  run.multiply({cores + g.begin(1), inner, 1, z, Places::even(inner, line), batch, w,
                Places::even(inner, line), batch, line, false});
  run.wait();
}

/// y = T x for a tile x [f3, f2, f1, lanes]; z and w have scratch() numbers each.
template <class Run>
RINGLET_HOST_DEVICE void forward(const RingChain& g, const float* cores, const float* x, float* y,
                                 float* z, float* w, Run& run) {
  for (std::int64_t first = 0; first < g.f3; first += g.block) {
    const std::int64_t count = g.f3 - first < g.block ? g.f3 - first : g.block;
    first_lines(g, cores, x, first, count, z, w, run);
    const LastLine last = last_line(g, count);
    run.multiply({cores, g.bonds() * g.f1, 1, w, last.rows, last.batch,
                  y + first * g.f2 * g.f1 * g.lanes, Places::even(g.f1, g.lanes), last.out_batch,
                  g.lanes, false});
    run.wait();
  }
}

/// What the backward pass of a tile reads and writes.
struct Gradients {
  const float* x;
  const float* dy;
  float* dx;      ///< null: x needs none
  float* dcores;  ///< packed; the tile's gradients are added. Null: the cores need none
};

/// Gradients of a tile; z, w, dz and dw have scratch() numbers each.
template <class Run>
RINGLET_HOST_DEVICE void backward(const RingChain& g, const float* cores, const Gradients& t,
                                  float* z, float* w, float* dz, float* dw, Run& run) {
  const std::int64_t plane = g.f1 * g.f2 * g.lanes, line = g.f1 * g.lanes;
  const std::int64_t inner = g.rank * g.f2, last_rows = g.bonds() * g.f1;
  for (std::int64_t first = 0; first < g.f3; first += g.block) {
    const std::int64_t count = g.f3 - first < g.block ? g.f3 - first : g.block;
    const std::int64_t rows = count * g.bonds();
    const float* dy = t.dy + first * plane;
    const Places batch = Places::even(count * g.rank, inner * line);
    const LastLine last = last_line(g, count);
    if (t.dcores != nullptr) first_lines(g, cores, t.x, first, count, z, w, run);
    // The last line.
    run.multiply({cores, 1, last_rows, dy, Places::even(g.f1, g.lanes), last.out_batch, dw,
                  last.rows, last.batch, g.lanes, false});
    if (t.dcores != nullptr)
      run.add_dots({dy, Places::even(g.f1, g.lanes), last.out_batch, w, last.rows, last.batch,
                    t.dcores, last_rows, 1, g.lanes});
    run.wait();
    // The second.
    run.multiply({cores + g.begin(1), 1, inner, dw, Places::even(inner, line), batch, dz,
                  Places::even(inner, line), batch, line, false});
    if (t.dcores != nullptr)
      run.add_dots({dw, Places::even(inner, line), batch, z, Places::even(inner, line), batch,
                    t.dcores + g.begin(1), inner, 1, line});
    run.wait();
    // The first.
    const std::int64_t place = g.begin(2) + first * g.bonds() * g.f3;
    if (t.dx != nullptr)
      run.multiply({cores + place,
                    1,
                    g.f3,
                    dz,
                    Places::even(rows, plane),
                    {},
                    t.dx,
                    Places::even(g.f3, plane),
                    {},
                    plane,
                    first > 0});
    if (t.dcores != nullptr)
      run.add_dots({dz,
                    Places::even(rows, plane),
                    {},
                    t.x,
                    Places::even(g.f3, plane),
                    {},
                    t.dcores + place,
                    g.f3,
                    1,
                    plane});
    run.wait();
  }
}

}  // namespace ring_chain
}  // namespace ringlet::adapt
