// kohya's aspect buckets against the documented rule in Python (make_aspect_buckets.py).
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/data/aspect_buckets.h"
#include "ringlet/data/crop.h"

namespace ringlet::data {
namespace {

PictureSize size_in(const Json& row, std::size_t at) {
  return {row[at].get<std::int64_t>(), row[at + 1].get<std::int64_t>()};
}

// The crop of every 20th picture is made; pictures are large.
TEST(AspectBucketsGolden, TwoHundredSizesInFourSettingsAreKohyas) {
  const Json all = read_json_file(std::filesystem::path(RINGLET_SOURCE_DIR) /
                                  "tests/golden/data/aspect_buckets.json");
  ASSERT_EQ(all.size(), 4u);
  for (const Json& setting : all) {
    const PictureSize resolution = size_in(setting.at("resolution"), 0);
    const BucketOptions options = complete({.rule = BucketRule::kohya,
                                            .least = setting.at("least"),
                                            .most = setting.at("most"),
                                            .step = setting.at("step"),
                                            .no_upscale = setting.at("no_upscale")},
                                           resolution, {8});
    if (!options.no_upscale) {
      const std::vector<PictureSize> sizes = bucket_sizes(options, resolution);
      ASSERT_EQ(sizes.size(), setting.at("sizes").size());
      for (std::size_t i = 0; i < sizes.size(); ++i)
        EXPECT_EQ(sizes[i], size_in(setting.at("sizes")[i], 0));
    }
    ASSERT_EQ(setting.at("places").size(), 200u);
    std::size_t number = 0;
    for (const Json& row : setting.at("places")) {
      const PictureSize picture = size_in(row, 0);
      const BucketPlace place = place_in_bucket(picture, resolution, options);
      EXPECT_EQ(place.bucket, size_in(row, 2)) << row;
      EXPECT_EQ(place.scaled, size_in(row, 4)) << row;
      if (number++ % 20 != 0) continue;
      const io::Image image{
          picture.width, picture.height,
          std::vector<std::uint8_t>(static_cast<std::size_t>(picture.width * picture.height * 3))};
      const Crop crop = bucket_crop(image, place);
      EXPECT_EQ(crop.image.size(), place.bucket);
      EXPECT_EQ((PictureSize{crop.left, crop.top}), size_in(row, 6)) << row;
    }
  }
}

}  // namespace
}  // namespace ringlet::data
