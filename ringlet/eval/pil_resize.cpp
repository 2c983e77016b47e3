#include "ringlet/eval/pil_resize.h"

#include <algorithm>
#include <cmath>

namespace ringlet::eval {
namespace {

constexpr int kPrecision = 32 - 8 - 2;  // of fixed-point coefficients: 8-bit sums, two spare bits
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

/// What one output pixel is made of; the weights' sum is 1.
struct Taps {
  std::int64_t first = 0;
  std::vector<double> weights;
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
    Taps taps{first, {}};
    double sum = 0.0;
    for (std::int64_t x = first; x < end; ++x) {
      taps.weights.push_back(value_of(filter, (static_cast<double>(x) - centre + 0.5) / widening));
      sum += taps.weights.back();
    }
    if (sum != 0.0)
      for (double& weight : taps.weights) weight /= sum;
    all.push_back(std::move(taps));
  }
  return all;
}

/// How sums of 8-bit pictures are formed.
struct EightBit {
  using Value = std::uint8_t;
  static std::int64_t weight(double exact) {
    const double fixed = exact * (1 << kPrecision);
    return static_cast<std::int64_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
  }
  static std::int64_t start() { return std::int64_t{1} << (kPrecision - 1); }
  static Value finish(std::int64_t sum) {
    return static_cast<Value>(std::clamp<std::int64_t>(sum >> kPrecision, 0, 255));
  }
};

struct FloatingPoint {
  using Value = float;
  static double weight(double exact) { return exact; }
  static double start() { return 0.0; }
  static Value finish(double sum) { return static_cast<Value>(sum); }
};

template <class Kind>
using Pixels = std::vector<typename Kind::Value>;

/// One axis of a picture of in_width columns.
template <class Kind>
Pixels<Kind> resampled(const Pixels<Kind>& pixels, std::int64_t in_width, std::int64_t width,
                       std::int64_t height, const std::vector<Taps>& taps, bool horizontal) {
  Pixels<Kind> out(static_cast<std::size_t>(width * height * kChannels));
  const std::int64_t step = horizontal ? kChannels : in_width * kChannels;
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x) {
      const Taps& tap = taps[static_cast<std::size_t>(horizontal ? x : y)];
      const std::int64_t line = horizontal ? y * in_width * kChannels : x * kChannels;
      for (std::int64_t c = 0; c < kChannels; ++c) {
        auto sum = Kind::start();
        for (std::size_t n = 0; n < tap.weights.size(); ++n)
          sum += Kind::weight(tap.weights[n]) *
                 pixels[static_cast<std::size_t>(
                     line + (tap.first + static_cast<std::int64_t>(n)) * step + c)];
        out[static_cast<std::size_t>((y * width + x) * kChannels + c)] = Kind::finish(sum);
      }
    }
  return out;
}

template <class Kind>
Pixels<Kind> resized(Pixels<Kind> pixels, std::int64_t in_width, std::int64_t in_height,
                     std::int64_t width, std::int64_t height, PilFilter filter) {
  if (width != in_width)
    pixels = resampled<Kind>(pixels, in_width, width, in_height, taps_for(in_width, width, filter),
                             /*horizontal=*/true);
  if (height != in_height)
    pixels = resampled<Kind>(pixels, width, width, height, taps_for(in_height, height, filter),
                             /*horizontal=*/false);
  return pixels;
}

}  // namespace

io::Image pil_resize(const io::Image& image, std::int64_t width, std::int64_t height,
                     PilFilter filter) {
  return {width, height,
          resized<EightBit>(image.pixels, image.width, image.height, width, height, filter)};
}

std::vector<float> pil_resize_float(const io::Image& image, std::int64_t width, std::int64_t height,
                                    PilFilter filter) {
  return resized<FloatingPoint>({image.pixels.begin(), image.pixels.end()}, image.width,
                                image.height, width, height, filter);
}

}  // namespace ringlet::eval
