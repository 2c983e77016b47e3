// Training crops of pictures.
#pragma once

#include <cstdint>

#include "ringlet/core/picture_size.h"
#include "ringlet/data/aspect_buckets.h"
#include "ringlet/io/image.h"

namespace ringlet::data {

/// Where a crop lies between the two ends of what does not fit: 0 = left or top, 1 = right or
/// bottom.
struct CropPlace {
  double x = 0.5;
  double y = 0.5;
};

struct Crop {
  io::Image image;
  std::int64_t left = 0;  ///< pixels of the resized picture that were cut off
  std::int64_t top = 0;
  PictureSize whole = {};  ///< the size of the resized picture
};

/// Scales the picture until it just covers `size`, then cuts that size out of it.
Crop covering_crop(const io::Image& image, PictureSize size, CropPlace place = {});

/// The picture in its bucket. In the centre, half of an odd rest is rounded down, as kohya's
/// scripts do it.
Crop bucket_crop(const io::Image& image, const BucketPlace& bucket, CropPlace place = {});

/// The part of a map of the whole picture (of any size, in its proportions) that a crop shows.
io::Image same_crop(const io::Image& map, const Crop& crop);

/// Mirrored left to right.
io::Image mirrored(const io::Image& image);

}  // namespace ringlet::data
