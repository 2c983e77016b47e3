#include "ringlet/nn/patch_rows.h"

#include <type_traits>
#include <vector>

#include <ATen/ops/empty.h>

#include "ringlet/nn/parallel.h"

namespace ringlet::nn {
namespace {

constexpr std::int64_t kCommonTaps = 9;  // of a 3x3 kernel; a constant lets compilers unroll

/// to[c * taps + tap] = from[tap][c].
template <class Taps>
void interleave(const std::vector<const float*>& from, std::int64_t channels, Taps taps,
                float* to) {
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t tap = 0; tap < taps; ++tap) *to++ = from[static_cast<std::size_t>(tap)][c];
}

/// to[c] += sum over taps of from[tap][c * taps + tap].
template <class Taps>
void add_interleaved(const std::vector<const float*>& from, std::int64_t channels, Taps taps,
                     float* to) {
  for (std::int64_t c = 0; c < channels; ++c) {
    float sum = 0.0F;
    for (std::int64_t tap = 0; tap < taps; ++tap)
      sum += from[static_cast<std::size_t>(tap)][c * taps + tap];
    to[c] += sum;
  }
}

using CommonTaps = std::integral_constant<std::int64_t, kCommonTaps>;

}  // namespace

PatchGeometry::PatchGeometry(at::IntArrayRef picture, std::int64_t kernel_side,
                             Conv2dOptions convolution)
    : batch(picture[0]),
      channels(picture[1]),
      height(picture[2]),
      width(picture[3]),
      side(kernel_side),
      options(convolution) {}

at::Tensor patch_rows(const at::Tensor& picture, const PatchGeometry& geometry, std::int64_t first,
                      std::int64_t count) {
  const std::int64_t out_width = geometry.out_width(), taps = geometry.side * geometry.side;
  const std::int64_t pixels = geometry.out_height() * out_width, channels = geometry.channels;
  at::Tensor rows = at::empty({count, geometry.columns()}, picture.options());
  const float* const from = picture.const_data_ptr<float>();
  float* const to = rows.data_ptr<float>();
  const std::vector<float> beyond(static_cast<std::size_t>(channels), 0.0F);
  parallel_for(count, grain_of(geometry.columns()), [&](std::int64_t begin, std::int64_t end) {
    std::vector<const float*> sources(static_cast<std::size_t>(taps));
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t pixel = (first + row) % pixels, sample = (first + row) / pixels;
      const std::int64_t top =
          pixel / out_width * geometry.options.stride - geometry.options.padding;
      const std::int64_t left =
          pixel % out_width * geometry.options.stride - geometry.options.padding;
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        const std::int64_t y = top + tap / geometry.side, x = left + tap % geometry.side;
        const bool inside = y >= 0 && y < geometry.height && x >= 0 && x < geometry.width;
        sources[static_cast<std::size_t>(tap)] =
            inside ? from + ((sample * geometry.height + y) * geometry.width + x) * channels
                   : beyond.data();
      }
      float* const target = to + row * channels * taps;
      if (taps == kCommonTaps)
        interleave(sources, channels, CommonTaps(), target);
      else
        interleave(sources, channels, taps, target);
    }
  });
  return rows;
}

void add_patch_rows(at::Tensor& picture, const PatchGeometry& geometry, std::int64_t first,
                    const at::Tensor& rows) {
  const std::int64_t out_width = geometry.out_width(), out_height = geometry.out_height();
  const std::int64_t taps = geometry.side * geometry.side, channels = geometry.channels;
  const std::int64_t stride = geometry.options.stride, count = rows.size(0);
  const float* const from = rows.const_data_ptr<float>();
  float* const to = picture.data_ptr<float>();
  const std::vector<float> beyond(static_cast<std::size_t>(channels * taps), 0.0F);
  const std::int64_t pixels = geometry.height * geometry.width;
  parallel_for(
      geometry.batch * pixels, grain_of(channels * taps),
      [&](std::int64_t begin, std::int64_t end) {
        std::vector<const float*> sources(static_cast<std::size_t>(taps));
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
          const std::int64_t sample = pixel / pixels;
          const std::int64_t down = pixel % pixels / geometry.width + geometry.options.padding;
          const std::int64_t right = pixel % geometry.width + geometry.options.padding;
          bool any = false;
          for (std::int64_t tap = 0; tap < taps; ++tap) {
            const std::int64_t y = down - tap / geometry.side, x = right - tap % geometry.side;
            const std::int64_t row =
                (sample * out_height + y / stride) * out_width + x / stride - first;
            const bool seen = y >= 0 && x >= 0 && y % stride == 0 && x % stride == 0 &&
                              y / stride < out_height && x / stride < out_width && row >= 0 &&
                              row < count;
            sources[static_cast<std::size_t>(tap)] =
                seen ? from + row * channels * taps : beyond.data();
            any = any || seen;
          }
          if (!any) continue;
          if (taps == kCommonTaps)
            add_interleaved(sources, channels, CommonTaps(), to + pixel * channels);
          else
            add_interleaved(sources, channels, taps, to + pixel * channels);
        }
      });
}

}  // namespace ringlet::nn
