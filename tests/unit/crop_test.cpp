#include "ringlet/data/crop.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace ringlet::data {
namespace {

/// Red counts columns, green counts rows.
io::Image ramp(std::int64_t width, std::int64_t height) {
  io::Image image{width, height, {}};
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x)
      for (const std::int64_t value : {x, y, std::int64_t{7}})
        image.pixels.push_back(static_cast<std::uint8_t>(value));
  return image;
}

std::uint8_t at(const io::Image& image, std::int64_t x, std::int64_t y, int channel) {
  return image.pixels[static_cast<std::size_t>((y * image.width + x) * 3 + channel)];
}

TEST(CoveringCrop, OfAWidePictureIsItsMiddle) {
  const Crop crop = covering_crop(ramp(50, 20), {20, 20});  // no scaling
  EXPECT_EQ(crop.left, 15);
  EXPECT_EQ(crop.top, 0);
  ASSERT_EQ(crop.image.width, 20);
  ASSERT_EQ(crop.image.height, 20);
  ASSERT_EQ(crop.image.pixels.size(), 20u * 20u * 3u);
  for (std::int64_t y = 0; y < 20; ++y)
    for (std::int64_t x = 0; x < 20; ++x) {
      EXPECT_EQ(at(crop.image, x, y, 0), x + 15);
      EXPECT_EQ(at(crop.image, x, y, 1), y);
      EXPECT_EQ(at(crop.image, x, y, 2), 7);
    }
}

TEST(CoveringCrop, LiesWhereItIsAskedFor) {
  for (const auto& [place, left] :
       std::vector<std::pair<double, std::int64_t>>{{0.0, 0}, {0.25, 8}, {1.0, 30}}) {
    const Crop wide = covering_crop(ramp(50, 20), {20, 20}, {place, 0.9});
    EXPECT_EQ(wide.left, left);
    EXPECT_EQ(wide.top, 0);
    EXPECT_EQ(at(wide.image, 0, 0, 0), left);
    const Crop tall = covering_crop(ramp(20, 50), {20, 20}, {0.1, place});
    EXPECT_EQ(tall.left, 0);
    EXPECT_EQ(tall.top, left);
    EXPECT_EQ(at(tall.image, 3, 0, 1), left);
  }
}

TEST(CoveringCrop, CutsTheScaledPicture) {
  const Crop crop = covering_crop(ramp(200, 100), {20, 20}, {1.0, 1.0});  // scaled to 40 x 20
  EXPECT_EQ(crop.left, 20);
  EXPECT_EQ(crop.top, 0);
  for (std::int64_t x = 0; x < 20; ++x)  // means of 5 columns
    EXPECT_NEAR(at(crop.image, x, 3, 0), 5 * (x + 20) + 2, 1);
}

TEST(CoveringCrop, GrowsSmallPictures) {
  const Crop crop = covering_crop(ramp(8, 4), {16, 16});
  EXPECT_EQ(crop.image.width, 16);
  EXPECT_EQ(crop.image.height, 16);
  EXPECT_EQ(crop.left, 8);
}

TEST(CoveringCrop, TakesAnySize) {
  const Crop wide = covering_crop(ramp(50, 20), {40, 20}, {1.0, 0.5});  // no scaling
  EXPECT_EQ(wide.image.size(), (PictureSize{40, 20}));
  EXPECT_EQ(wide.left, 10);
  EXPECT_EQ(at(wide.image, 0, 19, 0), 10);
  EXPECT_EQ(at(wide.image, 0, 19, 1), 19);
  const Crop tall = covering_crop(ramp(50, 20), {10, 40}, {0.0, 0.5});  // scaled to 100 x 40
  EXPECT_EQ(tall.image.size(), (PictureSize{10, 40}));
  EXPECT_EQ(tall.left, 0);
  EXPECT_EQ(tall.top, 0);
  // The part of a map that the crop shows, whatever the map's own size is.
  const io::Image map = same_crop(ramp(100, 40), tall);
  EXPECT_EQ(map.size(), (PictureSize{10, 40}));
  EXPECT_EQ(at(map, 9, 30, 0), 9);
  EXPECT_EQ(at(map, 9, 30, 1), 30);
}

// Rounding must never leave a picture that is a pixel too small.
TEST(CoveringCrop, EverySizeIsCovered) {
  for (std::int64_t width = 1; width <= 40; width += 3)
    for (std::int64_t height = 1; height <= 40; ++height)
      for (const std::int64_t size : {7, 8, 32}) {
        const Crop crop = covering_crop(ramp(width, height), {size, size}, {1.0, 1.0});
        ASSERT_EQ(crop.image.pixels.size(), static_cast<std::size_t>(size * size * 3));
        ASSERT_TRUE(crop.left == 0 || crop.top == 0);
        const double ratio = static_cast<double>(std::max(width, height)) /
                             static_cast<double>(std::min(width, height));
        ASSERT_NEAR(static_cast<double>(crop.left + crop.top),
                    static_cast<double>(size) * (ratio - 1.0), 0.51);
      }
}

TEST(Mirrored, ExchangesLeftAndRight) {
  const io::Image image = ramp(5, 3);
  const io::Image other = mirrored(image);
  for (std::int64_t y = 0; y < 3; ++y)
    for (std::int64_t x = 0; x < 5; ++x) {
      EXPECT_EQ(at(other, x, y, 0), 4 - x);
      EXPECT_EQ(at(other, x, y, 1), y);
    }
  EXPECT_EQ(mirrored(other).pixels, image.pixels);
}

}  // namespace
}  // namespace ringlet::data
