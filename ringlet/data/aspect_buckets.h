// Aspect buckets: the few sizes that pictures of all proportions are cut to, so that batches can be
// made of pictures of one size. Pure functions of sizes.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/core/picture_size.h"

namespace ringlet::data {

/// How a picture finds its bucket.
///   off    every picture is cut to the resolution itself
///   area   sides are multiples of the step and the area is as near to the resolution's as they
///          allow without exceeding it; of those the one whose proportions are nearest
///   kohya  sd-scripts' list, choice and scaling to the pixel, with its limits of 256 and 1024
enum class BucketRule { off, area, kohya };

inline constexpr std::array<std::pair<const char*, BucketRule>, 3> kBucketRuleNames = {
    {{"area", BucketRule::area}, {"kohya", BucketRule::kohya}, {"off", BucketRule::off}}};

struct BucketOptions {
  BucketRule rule = BucketRule::area;
  /// Limits of a side and the unit of sides, in pixels; 0 = the rule's own. For kohya these are
  /// 256, 1024 and 64. For area they are half and twice the side of the resolution's square, and
  /// 64 or an eighth of that side where it is smaller.
  std::int64_t least = 0, most = 0, step = 0;
  /// Pictures are never enlarged: smaller ones keep their pixels, and a bucket of their own size.
  bool no_upscale = false;

  bool operator==(const BucketOptions&) const = default;
};

void describe(OptionList& list, BucketOptions& options);

/// Where a picture goes.
struct BucketPlace {
  PictureSize bucket;  ///< what is cut out
  PictureSize scaled;  ///< the picture's size before; covers the bucket
  bool operator==(const BucketPlace&) const = default;
};

/// What a model says of the sides of its pictures.
struct SideLimits {
  std::int64_t unit = 1;  ///< divides every side
  std::int64_t largest = std::numeric_limits<std::int64_t>::max();
};

/// The options with all numbers filled in. Throws Error(invalid_argument) for limits that make no
/// sense, such as a step that is no multiple of the unit, and limits that the resolution does not
/// fit between.
BucketOptions complete(const BucketOptions& options, PictureSize resolution, SideLimits limits);

/// The sizes that a rule chooses from, sorted by width and height; `options` are complete. Without
/// upscaling pictures have buckets besides.
std::vector<PictureSize> bucket_sizes(const BucketOptions& options, PictureSize resolution);

/// The bucket of a picture under complete options. Throws Error(unsupported) for a picture that is
/// smaller than a step and must not be enlarged.
BucketPlace place_in_bucket(PictureSize picture, PictureSize resolution,
                            const BucketOptions& options);

/// The one of `buckets`, which are some, whose proportions are nearest to a picture's: how class
/// pictures follow the others. The picture is scaled to cover it.
BucketPlace place_in_nearest(PictureSize picture, const std::vector<PictureSize>& buckets);

}  // namespace ringlet::data
