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

/// `image` scaled as a picture of the size `whole` must be until it just covers `size`.
io::Image covering(const io::Image& image, PictureSize whole, PictureSize size) {
  const auto ratio = [](std::int64_t wanted, std::int64_t own) {
    return static_cast<double>(wanted) / static_cast<double>(own);
  };
  const double factor = std::max(ratio(size.width, whole.width), ratio(size.height, whole.height));
  return io::resize_image(image, scaled(whole.width, factor, size.width),
                          scaled(whole.height, factor, size.height));
}

}  // namespace

Crop covering_crop(const io::Image& image, PictureSize size, CropPlace place) {
  const io::Image whole = covering(image, image.size(), size);
  const std::int64_t left = std::llround(place.x * static_cast<double>(whole.width - size.width));
  const std::int64_t top = std::llround(place.y * static_cast<double>(whole.height - size.height));
  return {io::cut_image(whole, left, top, size.width, size.height), left, top};
}

io::Image same_crop(const io::Image& map, const io::Image& picture, const Crop& crop) {
  const PictureSize size = crop.image.size();
  return io::cut_image(covering(map, picture.size(), size), crop.left, crop.top, size.width,
                       size.height);
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
