#include "ringlet/io/label_png.h"

#include <span>
#include <string>
#include <string_view>

#include <opencv2/imgcodecs.hpp>
#include <zlib.h>

#include "ringlet/core/error.h"
#include "ringlet/io/image_decode.h"

namespace ringlet::io {
namespace {

// PNG specification, third edition, §5.3 and §11.2.1.
constexpr std::size_t kSignatureBytes = 8, kChunkFrame = 12, kHeaderBody = 13;
constexpr std::size_t kHeaderType = 12, kDepthByte = 24, kColourByte = 25, kHeaderSum = 29;
constexpr unsigned kGrey = 0, kRgb = 2, kPalette = 3, kOtherFormat = 99;

unsigned byte_at(std::span<const std::byte> file, std::size_t place) {
  return std::to_integer<unsigned>(file[place]);
}

std::size_t big_endian(std::span<const std::byte> file, std::size_t place) {
  std::size_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | byte_at(file, place + i);
  return value;
}

/// The same file as a grey picture without palette and colour hints: decoders turn palettes into
/// colours, and then its indices are gone. The header was checked, so that all chunks up to IEND
/// are whole.
std::vector<std::byte> as_grey(std::span<const std::byte> file, const std::string& where) {
  if (big_endian(file, kSignatureBytes) != kHeaderBody)
    throw Error(ErrorCode::bad_format, where, "the image is damaged: its header has a wrong size");
  std::vector<std::byte> grey(file.begin(), file.begin() + kSignatureBytes);
  bool ended = false;
  for (std::size_t at = kSignatureBytes; !ended;) {
    const std::size_t length = big_endian(file, at) + kChunkFrame;
    const std::string_view type(reinterpret_cast<const char*>(&file[at + 4]), 4);
    ended = type == "IEND";
    if (type == "IHDR" || type == "IDAT" || ended) {
      const auto chunk = file.subspan(at, length);
      grey.insert(grey.end(), chunk.begin(), chunk.end());
    }
    at += length;
  }
  grey[kColourByte] = std::byte{kGrey};
  const auto sum =
      crc32(0, reinterpret_cast<const Bytef*>(&grey[kHeaderType]), kHeaderSum - kHeaderType);
  for (std::size_t i = 0; i < 4; ++i)
    grey[kHeaderSum + i] = static_cast<std::byte>(sum >> (24 - 8 * i) & 0xFF);
  return grey;
}

/// Pixels of all kinds as 16-bit numbers, all channels.
cv::Mat as_16_bit(const cv::Mat& pixels) {
  cv::Mat wide;
  pixels.convertTo(wide, CV_16U);
  return wide.isContinuous() ? wide : wide.clone();
}

}  // namespace

StoredNumbers decode_stored_numbers(std::span<const std::byte> file, const std::string& where,
                                    const ImageLimits& limits) {
  const ImageHeader header = read_checked_header(file, where, limits);
  const unsigned colour =
      header.format == ImageFormat::png ? byte_at(file, kColourByte) : kOtherFormat;
  const Error no_map(ErrorCode::unsupported, where, "is not a label map",
                     "label maps are PNGs, grey or with a palette and without alpha, whose stored "
                     "numbers are the classes");
  if (colour != kGrey && colour != kPalette && colour != kRgb) throw no_map;
  const cv::Mat pixels = as_16_bit(decode_by_opencv(
      colour == kRgb ? std::vector(file.begin(), file.end()) : as_grey(file, where),
      cv::IMREAD_UNCHANGED, where));
  const auto channels = static_cast<std::size_t>(pixels.channels());
  if (channels != (colour == kRgb ? 3 : 1) || pixels.cols != header.width ||
      pixels.rows != header.height)
    throw Error(ErrorCode::bad_format, where, "the image differs from its header");
  // Fewer than 8 bits come stretched to 0 … 255.
  const unsigned depth = byte_at(file, kDepthByte);
  const unsigned stretch = depth < 8 ? 255 / ((1u << depth) - 1) : 1;
  StoredNumbers numbers{header.width, header.height, {}};
  numbers.values.reserve(pixels.total());
  const std::span values(pixels.ptr<std::uint16_t>(), pixels.total() * channels);
  for (std::size_t i = 0; i < values.size(); i += channels) {
    if (values[i] != values[i + channels - 1] || values[i] != values[i + channels / 2])
      throw no_map;
    numbers.values.push_back(static_cast<std::uint16_t>(values[i] / stretch));
  }
  return numbers;
}

StoredNumbers read_stored_numbers(const std::filesystem::path& path, const ImageLimits& limits) {
  return decode_stored_numbers(read_image_bytes(path, limits), path.string(), limits);
}

}  // namespace ringlet::io
