// Image decoding against Pillow (make_images.py).
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/io/label_png.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet {
namespace {

const std::filesystem::path kImageData =
    std::filesystem::path(RINGLET_SOURCE_DIR) / "tests/golden/data";

TEST(ImagesGolden, PixelsEqualPillow) {
  const auto expected = io::load_tensors(kImageData / "images.safetensors");
  ASSERT_GE(expected.size(), 39u);
  for (const auto& [name, want] : expected) {
    const io::Image image = io::read_image(kImageData / "images" / name);
    ASSERT_EQ(image.height, want.size(0)) << name;
    ASSERT_EQ(image.width, want.size(1)) << name;
    const at::Tensor actual = at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()),
                                            {image.height, image.width, 3}, at::kByte);
    // Lossy formats may be decoded by another release of the same library.
    const bool lossy = name.ends_with(".jpg") || name.starts_with("lossy");
    const auto difference = (actual.to(at::kInt) - want.to(at::kInt)).abs().max().item<int>();
    EXPECT_LE(difference, lossy ? 2 : 0) << name;
  }
}

TEST(ImagesGolden, NumbersOfLabelMapsEqualPillow) {
  const Json maps = read_json_file(kImageData / "labels.json");
  ASSERT_EQ(maps.size(), 8u);
  for (const auto& [name, rows] : maps.items()) {
    const io::StoredNumbers stored = io::read_stored_numbers(kImageData / "labels" / name);
    std::vector<std::uint16_t> wanted;
    for (const Json& row : rows)
      for (const Json& value : row) wanted.push_back(value.get<std::uint16_t>());
    EXPECT_EQ(stored.height, 3) << name;
    EXPECT_EQ(stored.width, 5) << name;
    EXPECT_EQ(stored.values, wanted) << name;
  }
}

}  // namespace
}  // namespace ringlet
