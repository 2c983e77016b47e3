#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/kernels/ring_kernel.h"
#include "ringlet/adapt/kernels/row_chunks.h"
#include "ringlet/nn/parallel.h"
#include "ringlet/nn/small_products.h"

namespace ringlet::adapt {
namespace {

constexpr std::int64_t kTile = nn::SmallProducts::kLanes;

/// Uninitialised numbers at the start of a cache line.
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : numbers_(static_cast<float*>(
            ::operator new(static_cast<std::size_t>(count) * sizeof(float), kLine))) {}

  /// The next `count` of them.
  float* take(std::int64_t count) {
    float* const taken = numbers_.get() + taken_;
    taken_ += count;
    return taken;
  }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(float* numbers) const { ::operator delete(numbers, kLine); }
  };
  std::unique_ptr<float, Free> numbers_;
  std::int64_t taken_ = 0;
};

/// The executor of ring_chain.h on one thread.
struct OneThread {
  const nn::SmallProducts& products;
  void multiply(const nn::Product& product) const { products.product(product); }
  void add_dots(const nn::DotProducts& dots) const { products.dot_products(dots); }
  void wait() const {}
};

/// i3 at a time so that what the backward pass makes of a tile stays in a core's own cache.
RingChain tiled(const std::vector<at::Tensor>& cores) {
  constexpr std::int64_t kCached = 3 << 13;
  RingChain ring = chain_of(cores);
  ring.lanes = kTile;
  const std::int64_t most =
      std::max<std::int64_t>(1, kCached / (ring.bonds() * ring.f1 * ring.f2 * ring.lanes));
  const std::int64_t blocks = (ring.f3 + most - 1) / most;
  ring.block = (ring.f3 + blocks - 1) / blocks;
  return ring;
}

/// function(number of a core, its place among the packed ones) for all numbers of a core.
template <class Function>
void each_number(const RingChain& ring, std::size_t core, std::int64_t size, bool transposed,
                 Function function) {
  const PackedPlaces step = packed_places(ring, static_cast<int>(core), transposed);
  const std::int64_t begin = ring.begin(static_cast<int>(core)), rank = ring.rank;
  std::int64_t number = 0;
  for (std::int64_t i = 0; i < size; ++i)
    for (std::int64_t j = 0; j < size; ++j)
      for (std::int64_t a = 0; a < rank; ++a)
        for (std::int64_t b = 0; b < rank; ++b)
          function(number++, begin + i * step.i + j * step.j + a * step.a + b * step.b);
}

at::Tensor packed(const RingChain& ring, const std::vector<at::Tensor>& cores, bool transposed) {
  at::Tensor all = at::empty({ring.parameters()}, cores[0].options().requires_grad(false));
  float* const to = all.data_ptr<float>();
  for (std::size_t core = 0; core < cores.size(); ++core) {
    const at::Tensor numbers = cores[core].contiguous();
    const float* const from = numbers.const_data_ptr<float>();
    each_number(ring, core, numbers.size(0), transposed,
                [&](std::int64_t number, std::int64_t place) { to[place] = from[number]; });
  }
  return all;
}

/// The sum of rows, one after the other, as gradients of the cores.
std::vector<at::Tensor> unpacked(const RingChain& ring, const at::Tensor& sums,
                                 const std::vector<at::Tensor>& cores, bool transposed) {
  std::vector<float> total(static_cast<std::size_t>(ring.parameters()), 0.0F);
  const float* row = sums.const_data_ptr<float>();
  for (std::int64_t chunk = 0; chunk < sums.size(0); ++chunk)
    for (float& number : total) number += *row++;
  std::vector<at::Tensor> all;
  for (std::size_t core = 0; core < cores.size(); ++core) {
    at::Tensor& one = all.emplace_back(at::empty(cores[core].sizes(), sums.options()));
    float* const to = one.data_ptr<float>();
    each_number(ring, core, one.size(0), transposed, [&](std::int64_t number, std::int64_t place) {
      to[number] = total[static_cast<std::size_t>(place)];
    });
  }
  return all;
}

/// A chunk has at least as many operations as numbers times the rank's square.
std::int64_t grain(const RingChain& ring, const RowChunks& chunks) {
  return nn::grain_of(chunks.length * ring.width() * ring.rank * ring.rank);
}

class CpuRingKernel final : public RingKernel {
 public:
  at::Tensor product(const at::Tensor& x, const std::vector<at::Tensor>& cores,
                     bool transposed) const override {
    const RingChain ring = tiled(cores);
    const at::Tensor numbers = packed(ring, cores, transposed);
    const std::int64_t width = x.size(1);
    const RowChunks chunks(x.size(0), kTile);
    at::Tensor y = at::empty_like(x);
    const float *const from = x.const_data_ptr<float>(), *const packed_cores =
                                                             numbers.const_data_ptr<float>();
    float* const to = y.data_ptr<float>();
    nn::parallel_for(
        chunks.count(), grain(ring, chunks), [&](std::int64_t begin, std::int64_t end) {
          const OneThread run = {nn::small_products()};
          const std::int64_t tile = ring.width() * ring.lanes;
          Scratch scratch(2 * (tile + ring.scratch()));
          float *const in = scratch.take(tile), *const out = scratch.take(tile),
                       *const z = scratch.take(ring.scratch()),
                       *const w = scratch.take(ring.scratch());
          chunks.each_tile(begin, end, [&](std::int64_t, std::int64_t first, std::int64_t count) {
            run.products.load_tile(from + first * width, width, count, width, ring.width(), in);
            ring_chain::forward(ring, packed_cores, in, out, z, w, run);
            run.products.store_tile(out, width, count, width, to + first * width);
          });
        });
    return y;
  }

  Gradients gradients(const at::Tensor& x, const at::Tensor& dy,
                      const std::vector<at::Tensor>& cores, bool transposed, bool of_x,
                      bool of_cores) const override {
    const RingChain ring = tiled(cores);
    const at::Tensor numbers = packed(ring, cores, transposed);
    const RowChunks chunks(dy.size(0), kTile);
    Gradients found;
    if (of_x) found.dx = at::empty_like(dy);
    // The sums of each chunk, which are added in the order of the chunks.
    const std::int64_t parameters = of_cores ? ring.parameters() : 0;
    at::Tensor sums = at::zeros({chunks.count(), parameters}, numbers.options());
    nn::parallel_for(chunks.count(), grain(ring, chunks),
                     [&](std::int64_t begin, std::int64_t end) {
                       tiles_of(ring, numbers, chunks, begin, end, of_cores ? x : dy, dy, found.dx,
                                of_cores ? &sums : nullptr);
                     });
    if (of_cores) found.dcores = unpacked(ring, sums, cores, transposed);
    return found;
  }

 private:
  static void tiles_of(const RingChain& ring, const at::Tensor& numbers, const RowChunks& chunks,
                       std::int64_t begin, std::int64_t end, const at::Tensor& x,
                       const at::Tensor& dy, const at::Tensor& dx, at::Tensor* sums) {
    const OneThread run = {nn::small_products()};
    const std::int64_t tile = ring.width() * ring.lanes, width = dy.size(1), size = ring.scratch();
    Scratch scratch(3 * tile + 4 * size);
    float *const in = scratch.take(tile), *const out = scratch.take(tile),
                 *const back = scratch.take(tile), *const z = scratch.take(size),
                 *const w = scratch.take(size), *const dz = scratch.take(size),
                 *const dw = scratch.take(size);
    const auto load = [&](const at::Tensor& rows, std::int64_t first, std::int64_t count,
                          float* to) {
      run.products.load_tile(rows.const_data_ptr<float>() + first * width, width, count, width,
                             ring.width(), to);
    };
    chunks.each_tile(begin, end, [&](std::int64_t chunk, std::int64_t first, std::int64_t count) {
      if (sums != nullptr) load(x, first, count, in);
      load(dy, first, count, out);
      const ring_chain::Gradients gradients = {
          in, out, dx.defined() ? back : nullptr,
          sums != nullptr ? sums->data_ptr<float>() + chunk * ring.parameters() : nullptr};
      ring_chain::backward(ring, numbers.const_data_ptr<float>(), gradients, z, w, dz, dw, run);
      if (dx.defined())
        run.products.store_tile(back, width, count, width, dx.data_ptr<float>() + first * width);
    });
  }
};

}  // namespace

const RingKernel& cpu_ring_kernel() {
  static const CpuRingKernel kernel;
  return kernel;
}

}  // namespace ringlet::adapt
