#include "ringlet/io/image_header.h"

#include <optional>
#include <string_view>

#include <zlib.h>

#include "ringlet/core/error.h"

namespace ringlet::io {
namespace {

/// Bytes with bounds: reads past the end are the error "truncated".
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& where)
      : bytes_(bytes), where_(where) {}

  std::size_t size() const { return bytes_.size(); }
  [[noreturn]] void truncated() const {
    throw Error(ErrorCode::bad_format, where_, "the image is cut off",
                "copy or download the file again");
  }
  [[noreturn]] void broken(const std::string& what) const {
    throw Error(ErrorCode::bad_format, where_, "the image is damaged: " + what);
  }
  std::uint64_t big(std::size_t at, std::size_t count) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value = value << 8 | byte(at + i);
    return value;
  }
  std::uint64_t little(std::size_t at, std::size_t count) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value |= byte(at + i) << (8 * i);
    return value;
  }
  bool matches(std::size_t at, std::string_view text) const {
    if (at > size() || size() - at < text.size()) return false;
    for (std::size_t i = 0; i < text.size(); ++i)
      if (byte(at + i) != static_cast<unsigned char>(text[i])) return false;
    return true;
  }
  std::uint64_t crc() const {
    return crc32(0, reinterpret_cast<const Bytef*>(bytes_.data()),
                 static_cast<uInt>(bytes_.size()));
  }
  Reader part(std::size_t at, std::size_t count) const {
    if (at > size() || size() - at < count) truncated();
    return {bytes_.subspan(at, count), where_};
  }

 private:
  std::uint64_t byte(std::size_t at) const {
    if (at >= size()) truncated();
    return static_cast<std::uint64_t>(bytes_[at]);
  }
  std::span<const std::byte> bytes_;
  const std::string& where_;
};

/// The orientation tag (0x0112) of a TIFF block; 1 when there is none or the block is damaged, as
/// viewers treat it.
int tiff_orientation(const Reader& tiff) {
  const bool little = tiff.matches(0, "II");
  if (tiff.size() < 8 || (!little && !tiff.matches(0, "MM"))) return 1;
  const auto number = [&](std::size_t at, std::size_t count) {
    return little ? tiff.little(at, count) : tiff.big(at, count);
  };
  const auto directory = static_cast<std::size_t>(number(4, 4));
  if (directory > tiff.size() || tiff.size() - directory < 2) return 1;
  const auto entries = static_cast<std::size_t>(number(directory, 2));
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (tiff.size() < 12 || entry > tiff.size() - 12) return 1;
    if (number(entry, 2) != 0x0112) continue;
    const std::uint64_t value = number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

ImageHeader png_header(const Reader& file) {
  std::optional<ImageHeader> header;
  for (std::size_t at = 8;;) {
    const auto length = static_cast<std::size_t>(file.big(at, 4));
    const Reader body = file.part(at + 8, length);
    if (file.part(at + 4, length + 4).crc() != file.big(at + 8 + length, 4))
      file.broken("a checksum is wrong");
    if (!header && !file.matches(at + 4, "IHDR")) file.broken("it does not begin with IHDR");
    if (file.matches(at + 4, "IHDR")) {
      // Decoders go by the first: a second, smaller one would hide the size that they allocate.
      if (header) file.broken("it has two headers");
      header = ImageHeader{ImageFormat::png, static_cast<std::int64_t>(body.big(0, 4)),
                           static_cast<std::int64_t>(body.big(4, 4))};
    } else if (file.matches(at + 4, "eXIf")) {
      header->orientation = tiff_orientation(body);
    } else if (file.matches(at + 4, "IEND")) {
      return *header;
    }
    at += 12 + length;
  }
}

bool is_frame_header(std::uint64_t marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

/// True when the end-of-image marker follows somewhere after `from`.
bool has_end_of_image(const Reader& file, std::size_t from) {
  for (std::size_t at = file.size(); at-- > from + 1;)
    if (file.big(at, 1) == 0xD9 && file.big(at - 1, 1) == 0xFF) return true;
  return false;
}

ImageHeader jpeg_header(const Reader& file) {
  std::optional<ImageHeader> header;
  int orientation = 1;
  for (std::size_t at = 2;;) {
    if (file.big(at, 1) != 0xFF) file.broken("a marker is missing");
    const std::uint64_t marker = file.big(at + 1, 1);
    if (marker == 0xFF) {  // fill byte
      ++at;
      continue;
    }
    const auto length = static_cast<std::size_t>(file.big(at + 2, 2));
    if (length < 2) file.broken("a segment has no length");
    const Reader body = file.part(at + 4, length - 2);
    if (is_frame_header(marker)) {
      header = ImageHeader{ImageFormat::jpeg, static_cast<std::int64_t>(body.big(3, 2)),
                           static_cast<std::int64_t>(body.big(1, 2))};
    } else if (marker == 0xE1 && body.matches(0, std::string_view("Exif\0\0", 6))) {
      orientation = tiff_orientation(body.part(6, body.size() - 6));
    } else if (marker == 0xDA) {
      if (!header) file.broken("it has no frame header");
      if (!has_end_of_image(file, at)) file.truncated();
      header->orientation = orientation;
      return *header;
    }
    at += 2 + length;
  }
}

ImageHeader webp_header(const Reader& file) {
  const auto riff = static_cast<std::size_t>(file.little(4, 4));
  if (riff > file.size() - 8) file.truncated();
  ImageHeader header{ImageFormat::webp, 0, 0};
  for (std::size_t at = 12; at + 8 <= riff + 8;) {
    const auto length = static_cast<std::size_t>(file.little(at + 4, 4));
    const Reader body = file.part(at + 8, length);
    const auto side = [](std::uint64_t value) { return static_cast<std::int64_t>(value); };
    if (file.matches(at, "VP8X")) {
      header.width = side(body.little(4, 3)) + 1;
      header.height = side(body.little(7, 3)) + 1;
    } else if (file.matches(at, "VP8L") && header.width == 0) {
      const std::uint64_t bits = body.little(1, 4);
      header.width = side(bits & 0x3FFF) + 1;
      header.height = side(bits >> 14 & 0x3FFF) + 1;
    } else if (file.matches(at, "VP8 ") && header.width == 0) {
      header.width = side(body.little(6, 2) & 0x3FFF);
      header.height = side(body.little(8, 2) & 0x3FFF);
    } else if (file.matches(at, "EXIF")) {
      const std::size_t skip = body.matches(0, std::string_view("Exif\0\0", 6)) ? 6 : 0;
      header.orientation = tiff_orientation(body.part(skip, body.size() - skip));
    }
    at += 8 + length + length % 2;
  }
  return header;
}

}  // namespace

ImageHeader read_image_header(std::span<const std::byte> bytes, const std::string& where) {
  const Reader file(bytes, where);
  if (file.size() == 0) throw Error(ErrorCode::bad_format, where, "the file is empty");
  ImageHeader header{};
  if (file.matches(0, "\x89PNG\r\n\x1a\n"))
    header = png_header(file);
  else if (file.matches(0, "\xFF\xD8\xFF"))
    header = jpeg_header(file);
  else if (file.matches(0, "RIFF") && file.matches(8, "WEBP"))
    header = webp_header(file);
  else
    throw Error(ErrorCode::unsupported, where, "this is not a PNG, JPEG or WebP image",
                "convert it to one of these formats");
  if (header.width <= 0 || header.height <= 0) file.broken("its size is zero");
  return header;
}

}  // namespace ringlet::io
