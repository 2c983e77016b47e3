#include "ringlet/data/crop.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace ringlet::data {
namespace {

constexpr std::int64_t kChannels = 3;

std::int64_t scaled(std::int64_t side, double factor, std::int64_t least) {
  return std::max<std::int64_t>(least, std::llround(static_cast<double>(side) * factor));
}

}  // namespace

Crop square_crop(const io::Image& image, std::int64_t size, CropPlace place) {
  const double factor =
      static_cast<double>(size) / static_cast<double>(std::min(image.width, image.height));
  const io::Image covering = io::resize_image(image, scaled(image.width, factor, size),
                                              scaled(image.height, factor, size));
  Crop crop;
  crop.left = std::llround(place.x * static_cast<double>(covering.width - size));
  crop.top = std::llround(place.y * static_cast<double>(covering.height - size));
  crop.image = {size, size, {}};
  crop.image.pixels.reserve(static_cast<std::size_t>(size * size * kChannels));
  for (std::int64_t row = 0; row < size; ++row) {
    const auto begin =
        covering.pixels.begin() + ((crop.top + row) * covering.width + crop.left) * kChannels;
    crop.image.pixels.insert(crop.image.pixels.end(), begin, begin + size * kChannels);
  }
  return crop;
}

io::Image mirrored(const io::Image& image) {
  io::Image out = image;
  for (std::int64_t row = 0; row < image.height; ++row)
    for (std::int64_t column = 0; column < image.width; ++column) {
      const auto from = static_cast<std::ptrdiff_t>((row * image.width + column) * kChannels);
      const auto to =
          static_cast<std::ptrdiff_t>((row * image.width + image.width - 1 - column) * kChannels);
      std::copy_n(image.pixels.begin() + from, kChannels, out.pixels.begin() + to);
    }
  return out;
}

}  // namespace ringlet::data
