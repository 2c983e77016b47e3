#include "ringlet/train/text_to_image/picture_buckets.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "ringlet/core/error.h"
#include "ringlet/data/aspect_buckets.h"
#include "ringlet/io/image.h"

namespace ringlet::train {
namespace {

/// The resolution of a data set; that of the run has been checked.
void check_resolution(PictureSize size, data::SideLimits limits) {
  for (const std::int64_t side : {size.width, size.height})
    if (side % limits.unit != 0 || side > limits.largest)
      throw Error(ErrorCode::invalid_argument, Field("resolution"),
                  "a data set's resolution of " + size.short_text() + " does not fit the model",
                  "sides are multiples of " + std::to_string(limits.unit) + " up to " +
                      std::to_string(limits.largest));
}

}  // namespace

PictureSize size_of_picture(const std::filesystem::path& file) {
  try {
    return io::read_image_size(file);
  } catch (const Error&) {
    return {};  // the check of all pictures says what is wrong with it
  }
}

void place_in_buckets(std::vector<data::Picture>& pictures, const std::vector<data::Dataset>& sets,
                      PictureSize resolution, data::SideLimits limits) {
  std::vector<data::BucketOptions> rules;
  std::vector<PictureSize> sizes;
  for (const data::Dataset& set : sets) {
    check_resolution(set.resolution, limits);
    sizes.push_back(set.resolution.empty() ? resolution : set.resolution);
    rules.push_back(data::complete(set.buckets, sizes.back(), limits));
  }
  for (data::Picture& picture : pictures) {
    const data::BucketOptions& rule = rules.at(picture.use.dataset);
    const PictureSize wanted = sizes.at(picture.use.dataset);
    if (rule.rule == data::BucketRule::off && wanted == resolution) continue;
    const PictureSize own = size_of_picture(picture.path);
    if (own.empty()) continue;
    try {
      picture.use.place = data::place_in_bucket(own, wanted, rule);
    } catch (const Error& error) {
      throw Error(error.code(), picture.path.string(), error.message(), error.hint());
    }
    const PictureSize bucket = picture.use.place->bucket;
    if (std::max(bucket.width, bucket.height) > limits.largest)
      throw Error(ErrorCode::unsupported, picture.path.string(),
                  "its bucket of " + bucket.text() + " is too long for the model",
                  "the largest side is " + std::to_string(limits.largest) +
                      "; leave `bucket_no_upscale` out, or cut the picture");
  }
}

BucketCounts bucket_counts(const std::vector<data::Picture>& pictures, PictureSize resolution) {
  BucketCounts counts;
  for (const data::Picture& picture : pictures) {
    const PictureSize size = picture.use.place ? picture.use.place->bucket : resolution;
    auto count = std::ranges::find(counts, size, &std::pair<PictureSize, std::int64_t>::first);
    if (count == counts.end()) count = counts.insert(counts.end(), {size, 0});
    count->second += picture.repeats;
  }
  return counts;
}

std::vector<data::Picture> class_pictures_for(const BucketCounts& buckets,
                                              const std::vector<data::Picture>& class_pictures,
                                              PictureSize resolution) {
  if (buckets.size() == 1 && buckets.front().first == resolution) return class_pictures;
  std::vector<PictureSize> sizes;
  for (const auto& [size, count] : buckets) sizes.push_back(size);
  std::vector<data::Picture> placed = class_pictures;
  for (data::Picture& picture : placed)
    picture.use.place = data::place_in_nearest(size_of_picture(picture.path), sizes);
  const auto nearest = placed;
  for (const auto& [size, count] : buckets) {
    const auto is_there = [wanted = size](const data::Picture& picture) {
      return picture.use.place->bucket == wanted;
    };
    if (std::ranges::any_of(nearest, is_there)) continue;
    const std::size_t wanted =
        std::min(class_pictures.size(), static_cast<std::size_t>(std::max<std::int64_t>(count, 1)));
    for (std::size_t i = 0; i < wanted; ++i) {
      data::Picture picture = class_pictures[i];
      picture.use.place = data::place_in_nearest(size_of_picture(picture.path), {size});
      placed.push_back(std::move(picture));
    }
  }
  return placed;
}

}  // namespace ringlet::train
