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

/// The size of a picture that is scaled until it just covers `size`.
PictureSize covering(PictureSize picture, PictureSize size) {
  const auto ratio = [](std::int64_t wanted, std::int64_t own) {
    return static_cast<double>(wanted) / static_cast<double>(own);
  };
  const double factor =
      std::max(ratio(size.width, picture.width), ratio(size.height, picture.height));
  return {scaled(picture.width, factor, size.width), scaled(picture.height, factor, size.height)};
}

Crop cut(const io::Image& image, PictureSize whole, std::int64_t left, std::int64_t top,
         PictureSize size) {
  return {io::cut_image(io::resize_image(image, whole.width, whole.height), left, top, size.width,
                        size.height),
          left, top, whole};
}

}  // namespace

Crop covering_crop(const io::Image& image, PictureSize size, CropPlace place) {
  const PictureSize whole = covering(image.size(), size);
  const auto at = [](double share, std::int64_t rest) {
    return std::llround(share * static_cast<double>(rest));
  };
  return cut(image, whole, at(place.x, whole.width - size.width),
             at(place.y, whole.height - size.height), size);
}

Crop bucket_crop(const io::Image& image, const BucketPlace& bucket, CropPlace place) {
  const auto at = [](double share, std::int64_t rest) {  // half is rounded down
    return static_cast<std::int64_t>(std::ceil(share * static_cast<double>(rest) - 0.5));
  };
  return cut(image, bucket.scaled, at(place.x, bucket.scaled.width - bucket.bucket.width),
             at(place.y, bucket.scaled.height - bucket.bucket.height), bucket.bucket);
}

io::Image same_crop(const io::Image& map, const Crop& crop) {
  const PictureSize size = crop.image.size();
  return io::cut_image(io::resize_image(map, crop.whole.width, crop.whole.height), crop.left,
                       crop.top, size.width, size.height);
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
