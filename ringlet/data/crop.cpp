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

/// The picture scaled until it just covers size x size.
io::Image covering(const io::Image& image, std::int64_t picture_width, std::int64_t picture_height,
                   std::int64_t size) {
  const double factor =
      static_cast<double>(size) / static_cast<double>(std::min(picture_width, picture_height));
  return io::resize_image(image, scaled(picture_width, factor, size),
                          scaled(picture_height, factor, size));
}

}  // namespace

Crop square_crop(const io::Image& image, std::int64_t size, CropPlace place) {
  const io::Image whole = covering(image, image.width, image.height, size);
  const std::int64_t left = std::llround(place.x * static_cast<double>(whole.width - size));
  const std::int64_t top = std::llround(place.y * static_cast<double>(whole.height - size));
  return {io::cut_image(whole, left, top, size, size), left, top};
}

io::Image same_crop(const io::Image& map, const io::Image& picture, const Crop& crop) {
  const std::int64_t size = crop.image.width;
  return io::cut_image(covering(map, picture.width, picture.height, size), crop.left, crop.top,
                       size, size);
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
