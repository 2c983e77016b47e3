#include "ringlet/data/aspect_buckets.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::data {
namespace {

constexpr PictureSize kXl = {1024, 1024};

PictureSize area_bucket(PictureSize picture, PictureSize resolution = kXl, std::int64_t unit = 8) {
  return place_in_bucket(picture, resolution, complete({}, resolution, {unit})).bucket;
}

// The sizes that SDXL itself was trained on, of 1 megapixel each.
TEST(AspectBuckets, KeepTheAreaOfTheResolution) {
  EXPECT_EQ(area_bucket({1920, 1080}), (PictureSize{1344, 768}));  // kohya: 1024x576
  EXPECT_EQ(area_bucket({1080, 1920}), (PictureSize{768, 1344}));
  EXPECT_EQ(area_bucket({3000, 2000}), (PictureSize{1216, 832}));
  EXPECT_EQ(area_bucket({4000, 3000}), (PictureSize{1152, 896}));
  EXPECT_EQ(area_bucket({700, 700}), kXl);
  EXPECT_EQ(area_bucket({512, 512}, {512, 512}), (PictureSize{512, 512}));
}

TEST(AspectBuckets, AreMultiplesOfTheStepThatCoverEveryShape) {
  for (const PictureSize resolution : {PictureSize{1024, 1024}, {512, 512}, {64, 64}, {24, 16}}) {
    const BucketOptions options = complete({}, resolution, {8});
    const std::int64_t area = resolution.width * resolution.height;
    for (const PictureSize bucket : bucket_sizes(options, resolution)) {
      EXPECT_EQ(bucket.width % 8, 0);
      EXPECT_EQ(bucket.height % 8, 0);
      EXPECT_LE(bucket.width * bucket.height, area) << bucket.text();
      // Another step of the shorter side would be too much.
      const std::int64_t shorter = std::min(bucket.width, bucket.height);
      const std::int64_t longer = std::max(bucket.width, bucket.height);
      EXPECT_TRUE(bucket.is_square() || bucket == resolution ||
                  longer * (shorter + options.step) > area ||
                  shorter * (longer + options.step) > area)
          << bucket.text();
    }
    for (std::int64_t width = 10; width < 4000; width += 371)
      for (std::int64_t height = 10; height < 4000; height += 433) {
        const BucketPlace place = place_in_bucket({width, height}, resolution, options);
        EXPECT_GE(place.scaled.width, place.bucket.width);
        EXPECT_GE(place.scaled.height, place.bucket.height);
        EXPECT_TRUE(place.scaled.width == place.bucket.width ||
                    place.scaled.height == place.bucket.height);
      }
  }
}

TEST(AspectBuckets, SmallPicturesAreNotEnlargedOnRequest) {
  for (const BucketRule rule : {BucketRule::area, BucketRule::kohya}) {
    const BucketOptions options = complete({.rule = rule, .no_upscale = true}, kXl, {8});
    const BucketPlace small = place_in_bucket({500, 333}, kXl, options);
    EXPECT_EQ(small, (BucketPlace{{448, 320}, {500, 333}}));
    for (const PictureSize picture : {PictureSize{5000, 250}, {1500, 700}, {1025, 1024}}) {
      const BucketPlace place = place_in_bucket(picture, kXl, options);
      EXPECT_LE(place.scaled.width, picture.width) << picture.text();
      EXPECT_LE(place.scaled.height, picture.height) << picture.text();
      EXPECT_LE(place.bucket.width, place.scaled.width);
      EXPECT_LE(place.bucket.height, place.scaled.height);
    }
    expect_error(ErrorCode::unsupported, "smaller than a bucket's step of 64", [&] {
      place_in_bucket({500, 40}, kXl, options);
    });
  }
  const BucketOptions area = complete({.no_upscale = true}, kXl, {8});
  EXPECT_EQ(place_in_bucket({1920, 1080}, kXl, area).bucket, (PictureSize{1344, 768}));
}

TEST(AspectBuckets, ClassPicturesFollowTheOthers) {
  const std::vector<PictureSize> buckets = {{512, 512}, {768, 320}, {1024, 1024}};
  EXPECT_EQ(place_in_nearest({100, 100}, buckets).bucket, kXl);  // the larger of equals
  EXPECT_EQ(place_in_nearest({900, 400}, buckets), (BucketPlace{{768, 320}, {768, 341}}));
}

TEST(AspectBuckets, LimitsThatMakeNoSenseAreRefused) {
  const auto refused = [](const char* words, const BucketOptions& options) {
    expect_error(ErrorCode::invalid_argument, words, [&] { complete(options, kXl, {16, 4096}); });
  };
  refused("bucket_step: 24 is not a multiple of 16", {.step = 24});
  refused("bucket_min: 600 is not a multiple of the step of 64", {.least = 600});
  refused("bucket_max: 1100 is not a multiple of the step of 64", {.most = 1100});
  refused("bucket_min: 1024 is above `bucket_max`", {.least = 1024, .most = 512});
  refused("bucket_max: 960 is below the resolution of 1024", {.least = 512, .most = 960});
  refused("bucket_min: 1088 is above the resolution of 1024", {.least = 1088, .most = 2048});
  refused("bucket_max: 4160 is too long for the model", {.most = 4160});
  EXPECT_EQ(complete({}, kXl, {16, 1500}).most, 1472);
  const PictureSize large = PictureSize::square(2048);
  expect_error(ErrorCode::invalid_argument, "bucket_max: 1024 is below the resolution of 2048",
               [&] { complete({.rule = BucketRule::kohya}, large, {8}); });
}

}  // namespace
}  // namespace ringlet::data
