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
  for (const char* name : {"rgb.png", "rgb.jpg", "progressive.jpg", "lossless.webp", "lossy.webp",
                           "animated.webp", "rgb.bmp"}) {
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

std::string big_endian(std::uint32_t value, int bytes) {
  std::string out;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
    out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

std::string little_endian(std::uint32_t value, int bytes) {
  const std::string big = big_endian(value, bytes);
  return {big.rbegin(), big.rend()};
}

/// A grey PNG of one row.
std::string grey_png(int depth, std::uint32_t width, const std::string& row, std::uint32_t key) {
  const auto chunk = [](const std::string& content) {
    const auto crc =
        crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
    return big_endian(static_cast<std::uint32_t>(content.size() - 4), 4) + content +
           big_endian(static_cast<std::uint32_t>(crc), 4);
  };
  const std::string raw = std::string(1, '\0') + row;
  std::string packed(compressBound(raw.size()), '\0');
  uLongf size = packed.size();
  compress(reinterpret_cast<Bytef*>(packed.data()), &size,
           reinterpret_cast<const Bytef*>(raw.data()), raw.size());
  packed.resize(size);
  return "\x89PNG\r\n\x1a\n" +
         chunk("IHDR" + big_endian(width, 4) + big_endian(1, 4) + static_cast<char>(depth) +
               std::string(4, '\0')) +
         chunk("tRNS" + big_endian(key, 2)) + chunk("IDAT" + packed) + chunk("IEND");
}

std::vector<int> red_of(const Image& image) {
  std::vector<int> values;
  for (std::size_t i = 0; i < image.pixels.size(); i += 3) values.push_back(image.pixels[i]);
  return values;
}

// Stored numbers are compared before they are stretched or rounded to 8 bits.
TEST(Image, TheTransparentGreyOfAPngBecomesWhite) {
  using Values = std::vector<int>;
  EXPECT_EQ(red_of(decode(grey_png(1, 4, "\x50", 0))), (Values{255, 255, 255, 255}));
  EXPECT_EQ(red_of(decode(grey_png(2, 4, "\x1B", 1))), (Values{0, 255, 170, 255}));
  EXPECT_EQ(red_of(decode(grey_png(4, 2, "\x35", 3))), (Values{255, 85}));
  EXPECT_EQ(red_of(decode(grey_png(8, 3, "\x05\x07\x09", 7))), (Values{5, 255, 9}));
  EXPECT_EQ(red_of(decode(grey_png(8, 3, "\x05\x07\x09", 0x0107))), (Values{5, 255, 9}));
  // 0x1234 and 0x1235 have the same upper 8 bits.
  EXPECT_EQ(red_of(decode(grey_png(16, 2, "\x12\x34\x12\x35", 0x1234))), (Values{255, 18}));
}

/// A bitmap of 2 x 1 pixels of 32 bits with this information header's size and masks.
std::string bmp(std::uint32_t info, std::uint32_t compression, const std::string& masks,
                const std::string& pixels = "\x01\x02\x03\x80\x04\x05\x06\xFF") {
  std::string header = little_endian(info, 4) + little_endian(2, 4) + little_endian(1, 4) +
                       little_endian(1, 2) + little_endian(32, 2) + little_endian(compression, 4) +
                       little_endian(8, 4) + std::string(16, '\0') + masks;
  if (header.size() < info) header.resize(info, '\0');
  const auto begin = static_cast<std::uint32_t>(14 + header.size());
  return "BM" + little_endian(begin + 8, 4) + std::string(4, '\0') + little_endian(begin, 4) +
         header + pixels;
}

TEST(Image, BitmapsAreRead) {
  const std::vector<std::uint8_t> opaque = {3, 2, 1, 6, 5, 4};
  const std::string masks =
      little_endian(0xFF0000, 4) + little_endian(0xFF00, 4) + little_endian(0xFF, 4);
  EXPECT_EQ(decode(bmp(40, 0, "")).pixels, opaque);
  EXPECT_EQ(decode(bmp(40, 3, masks)).pixels, opaque);  // the fourth byte is no alpha
  EXPECT_EQ(decode(bmp(124, 3, masks + little_endian(0xFF000000, 4))).pixels,
            (std::vector<std::uint8_t>{129, 128, 128, 6, 5, 4}));
  expect_error(ErrorCode::unsupported, "compressed BMP", [] { decode(bmp(40, 1, "")); });
  expect_error(ErrorCode::bad_format, "truncated", [] { decode(bmp(40, 0, "", "1234567")); });
  std::string odd = bmp(40, 0, "");
  odd[28] = 7;
  expect_error(ErrorCode::bad_format, "no known size", [&] { decode(odd); });
  odd.replace(28, 1, 1, '\x08').replace(46, 4, little_endian(300, 4));
  expect_error(ErrorCode::bad_format, "palette", [&] { decode(odd); });
  std::string huge = bmp(40, 0, "");
  huge.replace(18, 8, little_endian(0x7FFFFFFF, 4) + little_endian(0x80000001, 4));
  expect_error(ErrorCode::bad_format, "truncated", [&] { decode(huge); });
  huge.replace(18, 4, little_endian(0, 4));
  expect_error(ErrorCode::bad_format, "size is zero", [&] { decode(huge); });
}

/// An animated WebP whose first frame is a lossless picture at (4, 2) of a larger canvas.
std::string animation(std::uint32_t canvas, std::uint32_t frame_width) {
  const std::string still = file_bytes(kImages / "lossless.webp");
  const Image image = decode(still);
  const auto chunk = [](const std::string& name, const std::string& body) {
    return name + little_endian(static_cast<std::uint32_t>(body.size()), 4) + body +
           std::string(body.size() % 2, '\0');
  };
  const std::string frame = little_endian(2, 3) + little_endian(1, 3) +
                            little_endian(frame_width - 1, 3) +
                            little_endian(static_cast<std::uint32_t>(image.height) - 1, 3) +
                            little_endian(100, 3) + std::string(1, '\0') + still.substr(12);
  const std::string body =
      "WEBP" +
      chunk("VP8X", std::string("\x02\0\0\0", 4) + little_endian(canvas - 1, 3) +
                        little_endian(canvas - 1, 3)) +
      chunk("ANIM", std::string(6, '\0')) + chunk("ANMF", frame);
  return "RIFF" + little_endian(static_cast<std::uint32_t>(body.size()), 4) + body;
}

TEST(Image, TheFirstFrameLiesInItsPlaceOnWhite) {
  const Image frame = decode(file_bytes(kImages / "lossless.webp"));
  const auto width = static_cast<std::uint32_t>(frame.width);
  const Image whole = decode(animation(40, width));
  ASSERT_EQ(whole.width, 40);
  ASSERT_EQ(whole.height, 40);
  EXPECT_EQ(cut_image(whole, 4, 2, frame.width, frame.height).pixels, frame.pixels);
  for (const std::size_t outside : {std::size_t{0}, whole.pixels.size() - 1})
    EXPECT_EQ(whole.pixels[outside], 255);
  expect_error(ErrorCode::bad_format, "does not lie in it", [&] { decode(animation(20, width)); });
  expect_error(ErrorCode::bad_format, "first frame differs",
               [&] { decode(animation(40, width + 1)); });
  expect_error(ErrorCode::unsupported, "16777216", [&] { decode(animation(1u << 24, width)); });
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
  expect_error(ErrorCode::unsupported,
               "not a PNG, JPEG or WebP image, nor a BMP, but a GIF picture",
               [] { decode("GIF89a......."); });
  expect_error(ErrorCode::unsupported, "but a HEIC picture", [] {
    decode(
        std::string("\0\0\0\x18"
                    "ftypheic\0\0\0\0",
                    16));
  });
  expect_error(ErrorCode::unsupported, "but a web page", [] { decode("<!DOCTYPE html><p>404"); });
  expect_error(ErrorCode::unsupported, "not a PNG, JPEG or WebP image, nor a BMP",
               [] { decode("a caption"); });
  expect_error(ErrorCode::bad_format, "empty", [] { decode(""); });
  expect_error(ErrorCode::not_found, "nowhere.png", [] { read_image("nowhere.png"); });
}

TEST(Image, ResizeAndCropKeepsTheMiddle) {
  Image wide = gradient(30, 10);
  for (std::int64_t y = 0; y < 10; ++y)
    for (std::int64_t x = 0; x < 30; ++x)
      for (std::int64_t c = 0; c < 3; ++c)
        wide.pixels[static_cast<std::size_t>((y * 30 + x) * 3 + c)] = x >= 10 && x < 20 ? 200 : 0;
  const Image square = resize_and_crop(wide, {5, 5});
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
