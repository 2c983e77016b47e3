#include "ringlet/data/aspect_buckets.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "ringlet/core/error.h"

namespace ringlet::data {
namespace {

using Sides = std::pair<std::int64_t, std::int64_t>;

double proportion(PictureSize size) {
  return static_cast<double>(size.width) / static_cast<double>(size.height);
}

std::int64_t floor_to(std::int64_t side, std::int64_t step) { return side - side % step; }

/// The side of a square with the resolution's area, rounded down.
std::int64_t square_side(PictureSize resolution) {
  return static_cast<std::int64_t>(
      std::sqrt(static_cast<double>(resolution.width * resolution.height)));
}

/// Half is rounded up, as Python's int(x + 0.5) does it.
std::int64_t rounded(double side) { return static_cast<std::int64_t>(std::floor(side + 0.5)); }

/// Scaled until it covers the bucket; the side that fits is the one that kohya fits.
BucketPlace covering_place(PictureSize picture, PictureSize bucket) {
  const bool wider = proportion(picture) > proportion(bucket);
  const double factor =
      wider ? static_cast<double>(bucket.height) / static_cast<double>(picture.height)
            : static_cast<double>(bucket.width) / static_cast<double>(picture.width);
  return {bucket,
          {rounded(static_cast<double>(picture.width) * factor),
           rounded(static_cast<double>(picture.height) * factor)}};
}

/// sd-scripts compares proportions by their difference; the first of equals wins.
PictureSize nearest_by_difference(PictureSize picture, const std::vector<PictureSize>& buckets) {
  return *std::ranges::min_element(buckets, {}, [&](PictureSize bucket) {
    return std::abs(proportion(bucket) - proportion(picture));
  });
}

/// By the quotient, so that 2:3 and 3:2 are treated alike; the larger area of equals.
PictureSize nearest_by_quotient(PictureSize picture, const std::vector<PictureSize>& buckets) {
  return *std::ranges::min_element(buckets, {}, [&](PictureSize bucket) {
    return std::pair(std::abs(std::log(proportion(bucket) / proportion(picture))),
                     -bucket.width * bucket.height);
  });
}

/// The size to which sd-scripts shrinks a picture of more than the resolution's area: one side is
/// rounded to the step, whichever keeps the proportions better.
PictureSize shrunk(PictureSize picture, PictureSize resolution, std::int64_t step) {
  const double aspect = proportion(picture);
  const auto area = static_cast<double>(resolution.width * resolution.height);
  const double width = std::sqrt(area * aspect), height = area / width;
  const auto to_step = [&](double side) { return floor_to(rounded(side), step); };
  const std::int64_t by_width = to_step(width), by_height = to_step(height);
  const std::int64_t other_height =
      by_width == 0 ? 0 : to_step(static_cast<double>(by_width) / aspect);
  const std::int64_t other_width = to_step(static_cast<double>(by_height) * aspect);
  if (other_height == 0 || by_height == 0) return {};
  const double of_width = proportion({by_width, other_height});
  const double of_height = proportion({other_width, by_height});
  if (std::abs(of_width - aspect) < std::abs(of_height - aspect))
    return {by_width, rounded(static_cast<double>(by_width) / aspect)};
  return {rounded(static_cast<double>(by_height) * aspect), by_height};
}

Error too_small(PictureSize picture, std::int64_t step) {
  return {ErrorCode::unsupported, picture.text(),
          "the picture is smaller than a bucket's step of " + std::to_string(step) +
              ", and `bucket_no_upscale` forbids to enlarge it",
          "leave `bucket_no_upscale` out, or give a smaller `bucket_step`"};
}

/// Without upscaling: kohya's rule, which both rules share for pictures that are not enlarged.
BucketPlace place_shrinking(PictureSize picture, PictureSize resolution, std::int64_t step) {
  const bool large = picture.width * picture.height > resolution.width * resolution.height;
  const PictureSize scaled = large ? shrunk(picture, resolution, step) : picture;
  const PictureSize bucket = {floor_to(scaled.width, step), floor_to(scaled.height, step)};
  if (bucket.width == 0 || bucket.height == 0) throw too_small(picture, step);
  return {bucket, scaled};
}

/// Sizes of which each side is as long as the other one and the resolution's area allow.
void add_full_sizes(const BucketOptions& o, std::int64_t area, std::set<Sides>& sizes) {
  for (std::int64_t width = o.least; width <= o.most; width += o.step) {
    const std::int64_t height = std::min(o.most, floor_to(area / width, o.step));
    if (height < o.least) continue;
    sizes.emplace(width, height);
    sizes.emplace(height, width);
  }
}

void check_limits(const BucketOptions& o, PictureSize resolution, SideLimits limits) {
  const std::int64_t unit = limits.unit;
  if (o.step % unit != 0)
    throw Error(ErrorCode::invalid_argument, Field("bucket_step"),
                std::to_string(o.step) + " is not a multiple of " + std::to_string(unit) +
                    ", which the sides of this model's pictures are",
                "try " + std::to_string((o.step + unit - 1) / unit * unit));
  if (o.no_upscale) return;  // pictures have buckets of their own
  if (o.least > o.most)
    throw Error(
        ErrorCode::invalid_argument, Field("bucket_min"),
        std::to_string(o.least) + " is above `bucket_max`, which is " + std::to_string(o.most));
  for (const auto& [field, side] : {std::pair("bucket_min", o.least), {"bucket_max", o.most}})
    if (side % o.step != 0)
      throw Error(
          ErrorCode::invalid_argument, Field(field),
          std::to_string(side) + " is not a multiple of the step of " + std::to_string(o.step),
          "try " + std::to_string((side + o.step - 1) / o.step * o.step));
  if (o.most > limits.largest)
    throw Error(ErrorCode::invalid_argument, Field("bucket_max"),
                std::to_string(o.most) + " is too long for the model",
                "its largest side is " + std::to_string(limits.largest));
  if (o.most < std::max(resolution.width, resolution.height))
    throw Error(ErrorCode::invalid_argument, Field("bucket_max"),
                std::to_string(o.most) + " is below the resolution of " + resolution.short_text(),
                "give at least " + std::to_string(std::max(resolution.width, resolution.height)));
  if (o.least > std::min(resolution.width, resolution.height))
    throw Error(ErrorCode::invalid_argument, Field("bucket_min"),
                std::to_string(o.least) + " is above the resolution of " + resolution.short_text(),
                "give at most " + std::to_string(std::min(resolution.width, resolution.height)));
}

}  // namespace

void describe(OptionList& list, BucketOptions& o) {
  list.add("aspect_buckets", choice("aspect_buckets", o.rule, kBucketRuleNames),
           "How pictures that are not square are cut: to sizes of nearly the resolution's area; as "
           "kohya's scripts do it; or, off, all to the resolution itself")
      .repeated();
  list.add("bucket_min", o.least, "Aspect buckets: the shortest side; 0 = the rule's own")
      .within(Range::at_least(0))
      .repeated();
  list.add("bucket_max", o.most, "Aspect buckets: the longest side; 0 = the rule's own")
      .within(Range::at_least(0))
      .repeated();
  list.add("bucket_step", o.step,
           "Aspect buckets: sides are multiples of it; 0 = 64, and for small resolutions less")
      .within(Range::at_least(0))
      .repeated();
  list.add("bucket_no_upscale", o.no_upscale,
           "Aspect buckets: never enlarge a picture; a small one has a bucket of its own size")
      .repeated();
}

BucketOptions complete(const BucketOptions& options, PictureSize resolution, SideLimits limits) {
  BucketOptions o = options;
  if (o.rule == BucketRule::off) return o;
  const std::int64_t unit = limits.unit;
  constexpr std::int64_t kKohyaLeast = 256, kKohyaMost = 1024, kKohyaStep = 64;
  const std::int64_t side = square_side(resolution);
  const auto up_to_step = [&](std::int64_t length) {
    return (length + o.step - 1) / o.step * o.step;
  };
  if (o.rule == BucketRule::kohya) {
    if (o.step == 0) o.step = kKohyaStep;
    if (o.least == 0) o.least = kKohyaLeast;
    if (o.most == 0) o.most = kKohyaMost;
  } else {
    constexpr std::int64_t kParts = 8;
    if (o.step == 0) {
      const std::int64_t usual = std::max(unit, floor_to(kKohyaStep, unit));
      o.step = std::clamp(floor_to(side / kParts, unit), unit, usual);
    }
    if (o.least == 0)
      o.least = std::min(
          up_to_step(side / 2),
          std::max(o.step, floor_to(std::min(resolution.width, resolution.height), o.step)));
    if (o.most == 0)
      o.most =
          std::min(floor_to(limits.largest, o.step),
                   up_to_step(std::max(2 * side, std::max(resolution.width, resolution.height))));
  }
  check_limits(o, resolution, limits);
  return o;
}

std::vector<PictureSize> bucket_sizes(const BucketOptions& o, PictureSize resolution) {
  if (o.rule == BucketRule::off) return {resolution};
  const std::int64_t area = resolution.width * resolution.height;
  std::set<Sides> sizes;
  add_full_sizes(o, area, sizes);
  const std::int64_t side = floor_to(square_side(resolution), o.step);
  if (side > 0) sizes.emplace(side, side);
  if (o.rule == BucketRule::area) sizes.emplace(resolution.width, resolution.height);
  std::vector<PictureSize> found;
  for (const auto& [width, height] : sizes) found.push_back({width, height});
  return found;
}

BucketPlace place_in_bucket(PictureSize picture, PictureSize resolution, const BucketOptions& o) {
  if (o.rule == BucketRule::off) return covering_place(picture, resolution);
  if (o.no_upscale && (o.rule == BucketRule::kohya ||
                       picture.width * picture.height <= resolution.width * resolution.height))
    return place_shrinking(picture, resolution, o.step);
  const std::vector<PictureSize> buckets = bucket_sizes(o, resolution);
  if (std::ranges::find(buckets, picture) != buckets.end()) return {picture, picture};
  const PictureSize bucket = o.rule == BucketRule::kohya ? nearest_by_difference(picture, buckets)
                                                         : nearest_by_quotient(picture, buckets);
  const BucketPlace place = covering_place(picture, bucket);
  // An extreme shape can have more pixels than the resolution and still be shorter than the bucket.
  const bool enlarged = place.scaled.width > picture.width || place.scaled.height > picture.height;
  return o.no_upscale && enlarged ? place_shrinking(picture, resolution, o.step) : place;
}

BucketPlace place_in_nearest(PictureSize picture, const std::vector<PictureSize>& buckets) {
  return covering_place(picture, nearest_by_quotient(picture, buckets));
}

}  // namespace ringlet::data
