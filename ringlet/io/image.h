// Images in and out: 8-bit RGB in memory, PNG, JPEG, WebP and BMP files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/core/picture_size.h"

namespace ringlet::io {

/// Names of files that decode_image reads, in lower case.
inline constexpr std::array<std::string_view, 9> kImageExtensions = {
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".jfif", ".jpe", ".apng", ".dib"};

struct Image {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<std::uint8_t> pixels;  ///< RGB, row by row, width * height * 3 bytes

  PictureSize size() const { return {width, height}; }
};

struct ImageLimits {
  std::uint64_t max_bytes = 64u << 20;              ///< file size
  std::int64_t max_pixels = std::int64_t{1} << 26;  ///< 67 megapixels; checked before decoding
};

/// Decodes PNG, JPEG, WebP or BMP, told apart by their first bytes. EXIF orientation is applied;
/// alpha and what a PNG calls transparent are laid over white; grey becomes RGB; 16-bit is rounded
/// to 8; CMYK is converted; of an animation it is the first frame. Throws Error(bad_format |
/// unsupported).
Image decode_image(std::span<const std::byte> file, const std::string& where,
                   const ImageLimits& limits = {});

/// Reads and decodes a file. Throws also Error(not_found | io).
Image read_image(const std::filesystem::path& path, const ImageLimits& limits = {});

/// The size of a picture with its EXIF orientation applied, without decoding it. Throws as
/// read_image does, but for what only decoding finds.
PictureSize read_image_size(const std::filesystem::path& path, const ImageLimits& limits = {});

using PngText = std::vector<std::pair<std::string, std::string>>;  ///< keyword, UTF-8 text

/// A PNG with text chunks (tEXt where Latin-1 suffices, else iTXt).
std::string encode_png(const Image& image, const PngText& text = {});

/// encode_png into a file, atomically. Throws Error(io | no_space | not_found).
void write_png(const std::filesystem::path& path, const Image& image, const PngText& text = {});

/// The uncompressed text chunks of a PNG, as UTF-8.
std::map<std::string, std::string> read_png_text(const std::filesystem::path& path);

/// Resamples: pixel areas when it shrinks, Lanczos when it grows.
Image resize_image(const Image& image, std::int64_t width, std::int64_t height);

/// A part of a picture, which must lie inside it.
Image cut_image(const Image& image, std::int64_t left, std::int64_t top, std::int64_t width,
                std::int64_t height);

/// The largest centred part with the proportions of `size`, resized to exactly that.
Image resize_and_crop(const Image& image, PictureSize size);

/// Images of one size beside and below each other, `columns` in a row, on black.
Image image_grid(std::span<const Image> images, std::int64_t columns);

/// OpenCV's version, for reports.
std::string image_library_version();

}  // namespace ringlet::io
