#include "ringlet/io/image.h"

#include <fstream>

#include <gtest/gtest.h>
#include <zlib.h>

#include "ringlet/core/error.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::io {
namespace {

namespace fs = std::filesystem;
const fs::path kImages = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/images";

std::string file_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Image decode(const std::string& bytes, const ImageLimits& limits = {}) {
  return decode_image(std::as_bytes(std::span(bytes)), "picture", limits);
}

Image gradient(std::int64_t width, std::int64_t height) {
  Image image{width, height, {}};
  for (std::int64_t i = 0; i < width * height * 3; ++i)
    image.pixels.push_back(static_cast<std::uint8_t>(i * 7));
  return image;
}

TEST(Image, PngRoundTripIsExactAndCarriesText) {
  const TemporaryFolder folder;
  const Image image = gradient(9, 5);
  const std::string japanese = "日本 — prompt";
  write_png(folder / "a.png", image,
            {{"parameters", "a cat\nSteps: 3"}, {"latin", "café"}, {"wide", japanese}});
  EXPECT_EQ(read_image(folder / "a.png").pixels, image.pixels);
  const auto text = read_png_text(folder / "a.png");
  EXPECT_EQ(text.at("parameters"), "a cat\nSteps: 3");
  EXPECT_EQ(text.at("latin"), "café");
  EXPECT_EQ(text.at("wide"), japanese);
}

TEST(Image, EveryTruncationIsAnError) {
  for (const char* name :
       {"rgb.png", "rgb.jpg", "progressive.jpg", "lossless.webp", "lossy.webp"}) {
    const std::string bytes = file_bytes(kImages / name);
    for (std::size_t length = 0; length < bytes.size(); ++length)
      EXPECT_THROW(decode(bytes.substr(0, length)), Error) << name << " cut to " << length;
  }
}

TEST(Image, OneWrongByteNeverCrashes) {
  for (const auto& entry : fs::directory_iterator(kImages)) {
    const std::string bytes = file_bytes(entry.path());
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x5A);
      try {
        decode(damaged);
      } catch (const Error&) {  // an error is fine, a crash is not
      }
    }
  }
}

TEST(Image, ABombIsRefusedBeforeDecoding) {
  std::string png = file_bytes(kImages / "rgb.png");
  for (const std::size_t at : {16, 20}) png.replace(at, 4, std::string("\0\1\0\0", 4));
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(png.data()) + 12, 17);
  for (std::size_t i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  expect_error(ErrorCode::unsupported, "65536 x 65536", [&] { decode(png); });
}

TEST(Image, FileSizeCap) {
  const std::string png = file_bytes(kImages / "rgb.png");
  expect_error(ErrorCode::unsupported, "limit", [&] { decode(png, {.max_bytes = 10}); });
  expect_error(ErrorCode::unsupported, "pixels", [&] { decode(png, {.max_pixels = 10}); });
}

TEST(Image, SaysWhatIsWrong) {
  expect_error(ErrorCode::unsupported, "not a PNG, JPEG or WebP", [] { decode("GIF89a......."); });
  expect_error(ErrorCode::bad_format, "empty", [] { decode(""); });
  expect_error(ErrorCode::not_found, "nowhere.png", [] { read_image("nowhere.png"); });
}

TEST(Image, ResizeAndCropKeepsTheMiddle) {
  Image wide = gradient(30, 10);
  for (std::int64_t y = 0; y < 10; ++y)
    for (std::int64_t x = 0; x < 30; ++x)
      for (std::int64_t c = 0; c < 3; ++c)
        wide.pixels[static_cast<std::size_t>((y * 30 + x) * 3 + c)] = x >= 10 && x < 20 ? 200 : 0;
  const Image square = resize_and_crop(wide, 5, 5);
  EXPECT_EQ(square.width, 5);
  for (const std::uint8_t value : square.pixels) EXPECT_EQ(value, 200);
}

TEST(Image, GridPlacesImagesRowByRow) {
  const std::vector<Image> images(3, gradient(4, 3));
  const Image grid = image_grid(images, 2);
  EXPECT_EQ(grid.width, 8);
  EXPECT_EQ(grid.height, 6);
  EXPECT_EQ(grid.pixels.back(), 0);  // the empty fourth place
}

}  // namespace
}  // namespace ringlet::io
