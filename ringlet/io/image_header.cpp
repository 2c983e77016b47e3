#include "ringlet/io/image_header.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

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
    throw Error(ErrorCode::bad_format, where_, "the image is truncated",
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

/// Chunk tRNS of a grey PNG. Decoders stretch fewer than 8 bits to 0 … 255.
std::optional<std::uint16_t> transparent_grey(const Reader& ihdr, const Reader& trns) {
  constexpr std::uint64_t kGrey = 0;
  const std::uint64_t depth = ihdr.big(8, 1);
  if (ihdr.big(9, 1) != kGrey || trns.size() != 2 || depth < 1 || depth > 16) return std::nullopt;
  const std::uint64_t most = (std::uint64_t{1} << depth) - 1;
  const std::uint64_t value = trns.big(0, 2) & most;
  return static_cast<std::uint16_t>(depth < 8 ? value * 255 / most : value);
}

ImageHeader png_header(const Reader& file) {
  constexpr std::size_t kHeaderBody = 16;  // the signature, then length and type
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
    } else if (file.matches(at + 4, "tRNS")) {
      header->transparent_grey = transparent_grey(file.part(kHeaderBody, 13), body);
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

std::int64_t side(std::uint64_t value) { return static_cast<std::int64_t>(value); }

/// `body` is that of a chunk ANMF, which lies at `begin` in the file.
AnimationFrame webp_frame(const Reader& file, const Reader& body, std::size_t begin) {
  constexpr std::size_t kFrameHeader = 16;
  if (body.size() < kFrameHeader) file.broken("a frame of the animation has no header");
  return {2 * side(body.little(0, 3)), 2 * side(body.little(3, 3)), side(body.little(6, 3)) + 1,
          side(body.little(9, 3)) + 1, begin + kFrameHeader,        body.size() - kFrameHeader};
}

ImageHeader webp_header(const Reader& file) {
  const auto riff = static_cast<std::size_t>(file.little(4, 4));
  if (riff > file.size() - 8) file.truncated();
  ImageHeader header{ImageFormat::webp, 0, 0};
  for (std::size_t at = 12; at + 8 <= riff + 8;) {
    const auto length = static_cast<std::size_t>(file.little(at + 4, 4));
    const Reader body = file.part(at + 8, length);
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
    } else if (file.matches(at, "ANMF") && !header.first_frame) {
      header.first_frame = webp_frame(file, body, at + 8);
    } else if (file.matches(at, "EXIF")) {
      const std::size_t skip = body.matches(0, std::string_view("Exif\0\0", 6)) ? 6 : 0;
      header.orientation = tiff_orientation(body.part(skip, body.size() - skip));
    }
    at += 8 + length + length % 2;
  }
  if (const auto& frame = header.first_frame)
    if (frame->left + frame->width > header.width || frame->top + frame->height > header.height)
      file.broken("a frame of the animation does not lie in it");
  return header;
}

/// Windows and OS/2 bitmaps of whole pixels; those of run lengths break off without a trace.
ImageHeader bmp_header(const Reader& file, const std::string& where) {
  constexpr std::size_t kInfo = 14;  // where the information header begins
  constexpr std::uint64_t kCore = 12, kUsual = 40, kWithAlphaMask = 56;
  constexpr std::uint64_t kWhole = 0, kMasks = 3;  // kinds of compression
  const std::uint64_t info = file.little(kInfo, 4);
  if (info != kCore && info < kUsual) file.broken("its header has an unknown size");
  const auto number = [&](std::size_t at) {
    return std::int64_t{static_cast<std::int32_t>(file.little(kInfo + at, 4))};
  };
  ImageHeader header{ImageFormat::bmp, 0, 0};
  std::uint64_t bits = 0, compression = kWhole;
  if (info == kCore) {
    header.width = side(file.little(kInfo + 4, 2));
    header.height = side(file.little(kInfo + 6, 2));
    bits = file.little(kInfo + 10, 2);
  } else {
    header.width = number(4);
    header.height = std::abs(number(8));  // negative where the first row is the upper one
    bits = file.little(kInfo + 14, 2);
    compression = file.little(kInfo + 16, 4);
  }
  if (compression != kWhole && compression != kMasks)
    throw Error(ErrorCode::unsupported, where, "this is a compressed BMP, which is not read",
                "convert it to PNG, JPEG or WebP");
  if (header.width <= 0 || header.height <= 0) return header;
  static constexpr std::array<std::uint64_t, 6> kBits = {1, 4, 8, 16, 24, 32};
  if (std::ranges::find(kBits, bits) == kBits.end()) file.broken("its pixels have no known size");
  const std::uint64_t said = info == kCore ? 0 : file.little(kInfo + 32, 4);
  const std::uint64_t colours = bits > 8 ? 0 : said == 0 ? std::uint64_t{1} << bits : said;
  if (colours > 256 || kInfo + info + colours * (info == kCore ? 3 : 4) > file.size())
    file.broken("its palette is incomplete");
  constexpr std::uint64_t kAlphaMask = 52;
  header.has_alpha =
      compression == kMasks && info >= kWithAlphaMask && file.little(kInfo + kAlphaMask, 4) != 0;
  const std::uint64_t begin = file.little(10, 4);
  const std::uint64_t row = (static_cast<std::uint64_t>(header.width) * bits + 31) / 32 * 4;
  if (begin > file.size() ||
      (file.size() - begin) / row < static_cast<std::uint64_t>(header.height))
    file.truncated();
  return header;
}

/// What a file of another format is called, or null.
const char* other_format(const Reader& file) {
  using namespace std::literals;
  struct Signature {
    std::size_t at;
    std::string_view bytes;
    const char* name;
  };
  static constexpr std::array kSignatures = {
      Signature{4, "ftypavi", "an AVIF picture"},
      Signature{4, "ftyphe", "a HEIC picture"},
      Signature{4, "ftypmif1", "a HEIF picture"},
      Signature{4, "ftypmsf1", "a HEIF picture"},
      Signature{4, "ftyp", "a film"},
      Signature{0, "GIF8", "a GIF picture"},
      Signature{0, "II*\0"sv, "a TIFF picture"},
      Signature{0, "MM\0*"sv, "a TIFF picture"},
      Signature{0, "\xFF\x0A", "a JPEG XL picture"},
      Signature{0, "\0\0\0\x0CJXL "sv, "a JPEG XL picture"},
      Signature{0, "\0\0\0\x0CjP  "sv, "a JPEG 2000 picture"},
      Signature{0, "8BPS", "a Photoshop file"},
      Signature{0, "%PDF", "a PDF file"},
      Signature{0, "<!DOCTYPE", "a web page"},
      Signature{0, "<!doctype", "a web page"},
      Signature{0, "<html", "a web page"},
      Signature{0, "<svg", "an SVG drawing"},
      Signature{0, "<?xml", "an XML file"},
      Signature{0, "version https://git-lfs", "a pointer of Git LFS: the file was not downloaded"}};
  for (const Signature& signature : kSignatures)
    if (file.matches(signature.at, signature.bytes)) return signature.name;
  return nullptr;
}

[[noreturn]] void refuse_format(const Reader& file, const std::string& where) {
  std::string what = "this is not a PNG, JPEG or WebP image, nor a BMP";
  if (const char* name = other_format(file)) what += std::string(", but ") + name;
  throw Error(ErrorCode::unsupported, where, what, "convert it to PNG, JPEG or WebP");
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
  else if (file.matches(0, "BM") && file.size() > 18 &&
           file.matches(15, std::string_view("\0\0\0", 3)))
    header = bmp_header(file, where);
  else
    refuse_format(file, where);
  if (header.width <= 0 || header.height <= 0) file.broken("its size is zero");
  return header;
}

}  // namespace ringlet::io
