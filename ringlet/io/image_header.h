// What can be told about an image file without decoding it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ringlet::io {

enum class ImageFormat { png, jpeg, webp };

struct ImageHeader {
  ImageFormat format;
  std::int64_t width;  ///< as stored, before the EXIF orientation
  std::int64_t height;
  int orientation = 1;  ///< EXIF orientation, 1 to 8
};

/// Recognises PNG, JPEG and WebP by their first bytes and reads size and orientation. Every chunk
/// length is checked; a file that stops before its end mark is an error, since decoders would fill
/// the rest with grey. Throws Error(bad_format | unsupported).
ImageHeader read_image_header(std::span<const std::byte> file, const std::string& where);

}  // namespace ringlet::io
