// Damaged and hostile picture files: an Error or a picture, nothing else.
#include <array>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/random.h"
#include "ringlet/io/image.h"
#include "ringlet/io/label_png.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::io {
namespace {

namespace fs = std::filesystem;
using namespace std::literals;

std::string file_bytes(const std::string& name) {
  std::ifstream file(fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/images" / name,
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Image decode(const std::string& bytes) {
  return decode_image(std::as_bytes(std::span(bytes)), "picture");
}

struct Format {
  std::string name;
  std::vector<std::string> files;
};

class ImageFault : public testing::TestWithParam<Format> {
 protected:
  /// Decodes damaged bytes, as a picture and as a label map; only an input error or something well
  /// formed may come of it.
  static void expect_error_or_picture(const std::string& bytes, const std::string& trace) {
    expect_input_error(
        [&] {
          const Image image = decode(bytes);
          EXPECT_GT(image.width, 0) << trace;
          EXPECT_GT(image.height, 0) << trace;
          EXPECT_EQ(static_cast<std::int64_t>(image.pixels.size()), image.width * image.height * 3)
              << trace;
        },
        trace);
    expect_input_error(
        [&] {
          const StoredNumbers map =
              decode_stored_numbers(std::as_bytes(std::span(bytes)), "picture");
          EXPECT_EQ(static_cast<std::int64_t>(map.values.size()), map.width * map.height) << trace;
        },
        trace);
  }

  static void expect_input_error(const auto& act, const std::string& trace) {
    try {
      act();
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::bad_format || error.code() == ErrorCode::unsupported)
          << trace << ": " << error.what();
      EXPECT_EQ(error.where(), "picture");
    }
  }
};

// Decoders fill what is missing with grey; a data set would silently contain half pictures.
TEST_P(ImageFault, EveryTruncationIsAnError) {
  for (const std::string& name : GetParam().files) {
    const std::string bytes = file_bytes(name);
    ASSERT_NO_THROW(decode(bytes)) << name;
    for (std::size_t length = 0; length < bytes.size(); ++length)
      EXPECT_THROW(decode(bytes.substr(0, length)), Error) << name << " cut to " << length;
  }
}

TEST_P(ImageFault, BitFlips) {
  RandomStream random = Random(17).stream("flip " + GetParam().name);
  for (int i = 0; i < 2000; ++i) {
    const std::string& name = GetParam().files[random.uniform_int(GetParam().files.size())];
    std::string bytes = file_bytes(name);
    const std::uint64_t flips = 1 + random.uniform_int(4);
    for (std::uint64_t flip = 0; flip < flips; ++flip) {
      const std::size_t at = random.uniform_int(bytes.size());
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.uniform_int(8)));
    }
    expect_error_or_picture(bytes, name + " " + std::to_string(i));
  }
}

TEST_P(ImageFault, PiecesMissingDoubledAndMoved) {
  RandomStream random = Random(18).stream("splice " + GetParam().name);
  for (int i = 0; i < 500; ++i) {
    const std::string& name = GetParam().files[random.uniform_int(GetParam().files.size())];
    std::string bytes = file_bytes(name);
    const std::size_t from = random.uniform_int(bytes.size());
    const std::size_t count = 1 + random.uniform_int(40);
    const std::string piece = bytes.substr(from, count);
    if (random.uniform_int(2) == 0) bytes.erase(from, count);
    if (random.uniform_int(2) == 0) bytes.insert(random.uniform_int(bytes.size() + 1), piece);
    expect_error_or_picture(bytes, name + " " + std::to_string(i));
  }
}

TEST_P(ImageFault, ContentCountsNotTheExtension) {
  const TemporaryFolder folder;
  for (const std::string& name : GetParam().files)
    for (const char* extension : {".png", ".jpg", ".webp", ".txt", ""}) {
      const fs::path path = folder / ("picture"s + extension);
      write_file_atomically(path, file_bytes(name));
      EXPECT_EQ(read_image(path).pixels, decode(file_bytes(name)).pixels) << path;
    }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, ImageFault,
    testing::Values(Format{"Png",
                           {"rgb.png", "grey16.png", "one_bit.png", "palette.png",
                            "palette_alpha.png", "grey_key.png", "grey16_key.png", "animated.png"}},
                    Format{"Jpeg", {"rgb.jpg", "progressive.jpg", "cmyk.jpg"}},
                    Format{"Webp",
                           {"lossless.webp", "lossy.webp", "alpha.webp", "animated.webp",
                            "lossy_animated.webp"}},
                    Format{"Bmp", {"rgb.bmp", "grey.bmp", "one_bit.bmp", "palette.bmp"}}),
    [](const auto& entry) { return entry.param.name; });

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

std::string png_chunk(const std::string& content) {
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
  return big_endian(static_cast<std::uint32_t>(content.size() - 4), 4) + content +
         big_endian(static_cast<std::uint32_t>(crc), 4);
}

/// rgb.png's header with another size; kind, compression and interlacing as there.
std::string png_header(std::uint32_t side) {
  return png_chunk("IHDR" + big_endian(side, 4) + big_endian(side, 4) + "\x08\x02\0\0\0"s);
}

constexpr std::size_t kPngSignature = 8, kPngHeader = 25;
constexpr std::uint32_t kHuge = 30000;

std::string png_bomb() {
  return file_bytes("rgb.png").replace(kPngSignature, kPngHeader, png_header(kHuge));
}

std::string jpeg_bomb(const std::string& name, const std::string& marker) {
  std::string bytes = file_bytes(name);
  const std::size_t at = bytes.find(marker);
  return bytes.replace(at + 5, 4, big_endian(kHuge, 2) + big_endian(kHuge, 2));
}

/// An extended header that announces the size, before the small picture.
std::string webp_bomb() {
  const std::string extended = "VP8X" + little_endian(10, 4) + std::string(4, '\0') +
                               little_endian(kHuge - 1, 3) + little_endian(kHuge - 1, 3);
  const std::string body = "WEBP" + extended + file_bytes("lossless.webp").substr(12);
  return "RIFF" + little_endian(static_cast<std::uint32_t>(body.size()), 4) + body;
}

long peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;  // MiB
}

// A few hundred bytes that announce 30,000 x 30,000 pixels would take 2.5 GiB.
TEST(ImageBombs, AreRefusedBeforeMemoryIsTaken) {
  const long before = peak_memory();
  for (const std::string& bomb : {png_bomb(), jpeg_bomb("rgb.jpg", "\xFF\xC0"),
                                  jpeg_bomb("progressive.jpg", "\xFF\xC2"), webp_bomb()})
    expect_error(ErrorCode::unsupported, "30000 x 30000 pixels; the limit is",
                 [&] { decode(bomb); });
  EXPECT_LT(peak_memory() - before, 64);
}

// The check and the decoder must look at the same header.
TEST(ImageBombs, ASecondHeaderCannotHideTheFirst) {
  std::string bytes = png_bomb();
  bytes.insert(kPngSignature + kPngHeader, file_bytes("rgb.png").substr(kPngSignature, kPngHeader));
  expect_error(ErrorCode::bad_format, "two headers", [&] { decode(bytes); });
  // After the pixels, where decoders that stop at the last row never see it.
  bytes = png_bomb();
  bytes.insert(bytes.size() - 12, file_bytes("rgb.png").substr(kPngSignature, kPngHeader));
  expect_error(ErrorCode::bad_format, "two headers", [&] { decode(bytes); });
}

TEST(ImageBombs, SizesOfZeroAreRefused) {
  std::string png = file_bytes("rgb.png").replace(kPngSignature, kPngHeader, png_header(0));
  expect_error(ErrorCode::bad_format, "size is zero", [&] { decode(png); });
  png = file_bytes("rgb.png").replace(kPngSignature, kPngHeader, png_header(0xFFFFFFFF));
  expect_error(ErrorCode::unsupported, "4294967295", [&] { decode(png); });
}

TEST(ImageFiles, LargeFilesAreRefusedUnread) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.png", file_bytes("rgb.png"));
  fs::resize_file(folder / "a.png", std::uint64_t{200} << 20);  // sparse
  const long before = peak_memory();
  expect_error(ErrorCode::unsupported, "200 MiB; the limit is 64 MiB",
               [&] { read_image(folder / "a.png"); });
  EXPECT_LT(peak_memory() - before, 64);
}

TEST(ImageFiles, WhatIsNoFileIsNamed) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "folder.png");
  fs::create_symlink("loop.png", folder / "loop.png");
  fs::create_symlink("nowhere.png", folder / "dangling.png");
  ASSERT_EQ(::mkfifo((folder / "fifo.png").c_str(), 0600), 0);
  write_file_atomically(folder / "empty.png", "");
  expect_error(ErrorCode::io, "folder.png", [&] { read_image(folder / "folder.png"); });
  expect_error(ErrorCode::io, "loop.png", [&] { read_image(folder / "loop.png"); });
  expect_error(ErrorCode::io, "fifo.png", [&] { read_image(folder / "fifo.png"); });  // no waiting
  expect_error(ErrorCode::not_found, "dangling.png", [&] { read_image(folder / "dangling.png"); });
  expect_error(ErrorCode::bad_format, "empty.png: the file is empty",
               [&] { read_image(folder / "empty.png"); });
  expect_error(ErrorCode::io, "folder.png", [&] { read_png_text(folder / "folder.png"); });
  EXPECT_TRUE(read_png_text(folder / "empty.png").empty());
  expect_error(ErrorCode::io, "/dev/zero", [] { read_image("/dev/zero"); });
}

TEST(ImageFiles, GarbageIsNoPicture) {
  RandomStream random = Random(19).stream("garbage");
  for (const std::string& start : {""s, "\x89PNG\r\n\x1a\n"s, "\xFF\xD8\xFF"s,
                                   "RIFF\x40\0\0\0WEBP"s, "RIFF\xFF\xFF\xFF\xFFWEBPVP8X"s})
    for (int i = 0; i < 200; ++i) {
      std::string bytes = start;
      for (std::uint64_t k = random.uniform_int(80); k > 0; --k)
        bytes += static_cast<char>(random.next_u32());
      EXPECT_THROW(decode(bytes), Error);
    }
}

}  // namespace
}  // namespace ringlet::io
