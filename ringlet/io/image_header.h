// What can be told about an image file without decoding it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace ringlet::io {

enum class ImageFormat { png, jpeg, webp, bmp };

/// The first frame of an animated WebP (container specification, chunk ANMF).
struct AnimationFrame {
  std::int64_t left = 0;  ///< place on the canvas, in pixels
  std::int64_t top = 0;
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::size_t data = 0;  ///< where its chunks begin in the file
  std::size_t size = 0;  ///< bytes of them
};

struct ImageHeader {
  ImageFormat format;
  std::int64_t width;  ///< as stored, before the EXIF orientation
  std::int64_t height;
  int orientation = 1;  ///< EXIF orientation, 1 to 8
  /// Of a grey PNG: the value that is transparent, in the 8 or 16 bits that decoders give
  /// (specification, third edition, §11.3.1.1).
  std::optional<std::uint16_t> transparent_grey = {};
  bool has_alpha = true;  ///< false where a fourth channel, if there is one, says nothing
  std::optional<AnimationFrame> first_frame = {};  ///< of an animated WebP
};

/// Recognises PNG, JPEG, WebP and BMP by their first bytes and reads size and orientation. Every
/// chunk length is checked; a file that stops before its end mark is an error, since decoders would
/// fill the rest with grey. Throws Error(bad_format), and Error(unsupported) that names other
/// formats as far as they are known.
ImageHeader read_image_header(std::span<const std::byte> file, const std::string& where);

}  // namespace ringlet::io
