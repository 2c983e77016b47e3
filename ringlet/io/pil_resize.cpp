#include "ringlet/io/pil_resize.h"

#include <algorithm>
#include <cmath>

namespace ringlet::io {
namespace {

constexpr int kPrecision =
    32 - 8 - 2;  // of fixed-point coefficients: 8-bit sums with two spare bits
constexpr std::int64_t kChannels = 3;

double support_of(PilFilter filter) { return filter == PilFilter::bilinear ? 1.0 : 2.0; }

double value_of(PilFilter filter, double x) {
  x = std::abs(x);
  if (filter == PilFilter::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double kA = -0.5;  // Keys 1981
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * kA;
  return 0.0;
}

/// What one output pixel is made of.
struct Taps {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_for(std::int64_t in, std::int64_t out, PilFilter filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double widening = std::max(scale, 1.0);
  const double support = support_of(filter) * widening;
  std::vector<Taps> all;
  for (std::int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - support + 0.5));
    const auto end = std::min(in, static_cast<std::int64_t>(centre + support + 0.5));
    std::vector<double> weights;
    double sum = 0.0;
    for (std::int64_t x = first; x < end; ++x) {
      weights.push_back(value_of(filter, (static_cast<double>(x) - centre + 0.5) / widening));
      sum += weights.back();
    }
    Taps taps{first, {}};
    for (const double weight : weights) {
      const double fixed = (sum != 0.0 ? weight / sum : weight) * (1 << kPrecision);
      taps.weights.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
    all.push_back(std::move(taps));
  }
  return all;
}

std::uint8_t rounded(std::int64_t sum) {
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> kPrecision, 0, 255));
}

/// One axis of a picture: `step` is the distance of neighbours along it, `lines` the starts of the
/// lines that run along it.
Image resampled(const Image& image, std::int64_t width, std::int64_t height, PilFilter filter,
                bool horizontal) {
  const std::vector<Taps> taps =
      horizontal ? taps_for(image.width, width, filter) : taps_for(image.height, height, filter);
  Image out{width, height,
            std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * kChannels))};
  const std::int64_t step = horizontal ? kChannels : image.width * kChannels;
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x) {
      const Taps& tap = taps[static_cast<std::size_t>(horizontal ? x : y)];
      const std::int64_t line = horizontal ? y * image.width * kChannels : x * kChannels;
      for (std::int64_t c = 0; c < kChannels; ++c) {
        std::int64_t sum = std::int64_t{1} << (kPrecision - 1);
        for (std::size_t n = 0; n < tap.weights.size(); ++n)
          sum += std::int64_t{tap.weights[n]} *
                 image.pixels[static_cast<std::size_t>(
                     line + (tap.first + static_cast<std::int64_t>(n)) * step + c)];
        out.pixels[static_cast<std::size_t>((y * width + x) * kChannels + c)] = rounded(sum);
      }
    }
  return out;
}

}  // namespace

Image pil_resize(const Image& image, std::int64_t width, std::int64_t height, PilFilter filter) {
  const Image across = width == image.width
                           ? image
                           : resampled(image, width, image.height, filter, /*horizontal=*/true);
  return height == across.height ? across : resampled(across, width, height, filter, false);
}

}  // namespace ringlet::io
