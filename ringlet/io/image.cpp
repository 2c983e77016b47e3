#include "ringlet/io/image.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/io/image_decode.h"
#include "ringlet/io/image_header.h"

namespace ringlet::io {
namespace {

/// OpenCV writes decoding problems to stderr; ours are reported as errors.
void silence_opencv() {
  static const bool done = [] {
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    return true;
  }();
  (void)done;
}

cv::Mat to_8_bit(const cv::Mat& pixels) {
  if (pixels.depth() == CV_8U) return pixels;
  cv::Mat narrow;
  pixels.convertTo(narrow, CV_8U, pixels.depth() == CV_16U ? 255.0 / 65535.0 : 255.0);
  return narrow;
}

/// Alpha over white, rounded to nearest.
cv::Mat flatten_alpha(const cv::Mat& bgra) {
  cv::Mat bgr(bgra.size(), CV_8UC3);
  for (int y = 0; y < bgra.rows; ++y) {
    const auto* in = bgra.ptr<cv::Vec4b>(y);
    auto* out = bgr.ptr<cv::Vec3b>(y);
    for (int x = 0; x < bgra.cols; ++x) {
      const int alpha = in[x][3];
      for (int c = 0; c < 3; ++c)
        out[x][c] = static_cast<std::uint8_t>((in[x][c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return bgr;
}

cv::Mat to_bgr(const cv::Mat& pixels, const std::string& where) {
  const cv::Mat narrow = to_8_bit(pixels);
  cv::Mat bgr;
  switch (narrow.channels()) {
    case 1:
      cv::cvtColor(narrow, bgr, cv::COLOR_GRAY2BGR);
      return bgr;
    case 3:
      return narrow;
    case 4:
      return flatten_alpha(narrow);
    default:
      throw Error(ErrorCode::unsupported, where,
                  "an image with " + std::to_string(narrow.channels()) + " channels");
  }
}

}  // namespace

cv::Mat oriented(const cv::Mat& image, int orientation) {
  constexpr int kBothAxes = -1, kUpDown = 0, kLeftRight = 1;
  cv::Mat out;
  if (orientation >= 5)
    cv::transpose(image, out);
  else
    out = image;
  switch (orientation) {
    case 2:
    case 6:
      cv::flip(out, out, kLeftRight);
      break;
    case 3:
    case 7:
      cv::flip(out, out, kBothAxes);
      break;
    case 4:
    case 8:
      cv::flip(out, out, kUpDown);
      break;
    default:
      break;
  }
  return out;
}

namespace {

/// BGR before the orientation is undone.
cv::Mat decode_still(std::span<const std::byte> file, const ImageHeader& header,
                     const std::string& where) {
  // JPEG has neither alpha nor 16 bits, and IMREAD_COLOR converts its grey and CMYK forms.
  const int mode = header.format == ImageFormat::jpeg
                       ? cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION
                       : cv::IMREAD_UNCHANGED;
  cv::Mat pixels = decode_by_opencv(file, mode, where);
  if (pixels.cols != header.width || pixels.rows != header.height)
    throw Error(ErrorCode::bad_format, where, "the image differs in size from its header");
  if (header.transparent_grey && pixels.channels() == 1)
    pixels.setTo(cv::Scalar::all(pixels.depth() == CV_16U ? 65535 : 255),
                 pixels == *header.transparent_grey);
  if (!header.has_alpha && pixels.channels() == 4) cv::cvtColor(pixels, pixels, cv::COLOR_BGRA2BGR);
  return to_bgr(pixels, where);
}

std::string little_endian(std::size_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
  return out;
}

/// A frame of an animated WebP as a file of its own (container specification, extended format).
std::string still_of_frame(std::span<const std::byte> file, const AnimationFrame& frame) {
  const std::string chunks(reinterpret_cast<const char*>(file.data()) + frame.data, frame.size);
  std::string body = "WEBP";
  if (chunks.starts_with("ALPH")) {
    constexpr char kAlpha = 0x10;
    body += "VP8X" + little_endian(10, 4) + std::string{kAlpha, 0, 0, 0} +
            little_endian(static_cast<std::size_t>(frame.width - 1), 3) +
            little_endian(static_cast<std::size_t>(frame.height - 1), 3);
  }
  body += chunks;
  return "RIFF" + little_endian(body.size(), 4) + body;
}

/// OpenCV before 4.11 reads no animations. What the frame leaves of the canvas is transparent.
cv::Mat decode_first_frame(std::span<const std::byte> file, const ImageHeader& header,
                           const std::string& where, const ImageLimits& limits) {
  const AnimationFrame& frame = *header.first_frame;
  const std::string still = still_of_frame(file, frame);
  const auto bytes = std::as_bytes(std::span(still));
  const ImageHeader own = read_checked_header(bytes, where, limits);
  if (own.first_frame || own.width != frame.width || own.height != frame.height)
    throw Error(ErrorCode::bad_format, where,
                "the image is damaged: its first frame differs in size from its header");
  cv::Mat canvas(static_cast<int>(header.height), static_cast<int>(header.width), CV_8UC3,
                 cv::Scalar::all(255));
  decode_still(bytes, own, where)
      .copyTo(canvas(cv::Rect(static_cast<int>(frame.left), static_cast<int>(frame.top),
                              static_cast<int>(frame.width), static_cast<int>(frame.height))));
  return canvas;
}

/// A view of the image's pixels; channel order is the caller's business.
cv::Mat view(const Image& image) {
  return {static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
          const_cast<std::uint8_t*>(image.pixels.data())};
}

Image from_mat(const cv::Mat& rgb) {
  const cv::Mat packed = rgb.isContinuous() ? rgb : rgb.clone();
  return {packed.cols, packed.rows,
          std::vector<std::uint8_t>(packed.data, packed.data + packed.total() * 3)};
}

void check_bytes(std::uint64_t size, const std::string& where, const ImageLimits& limits) {
  if (size > limits.max_bytes)
    throw Error(ErrorCode::unsupported, where,
                "the image file has " + human_bytes(size) + "; the limit is " +
                    human_bytes(limits.max_bytes));
}

}  // namespace

std::vector<std::byte> read_image_bytes(const std::filesystem::path& path,
                                        const ImageLimits& limits) {
  const std::string where = path.string();
  std::error_code problem;
  const auto size = std::filesystem::file_size(path, problem);
  if (problem == std::errc::no_such_file_or_directory)
    throw Error(ErrorCode::not_found, where, "the image does not exist");
  if (problem) throw Error(ErrorCode::io, where, "cannot be read: " + problem.message());
  check_bytes(size, where, limits);
  std::vector<std::byte> bytes(size);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size)))
    throw Error(ErrorCode::io, where, "the image cannot be read");
  return bytes;
}

ImageHeader read_checked_header(std::span<const std::byte> file, const std::string& where,
                                const ImageLimits& limits) {
  check_bytes(file.size(), where, limits);
  const ImageHeader header = read_image_header(file, where);
  if (header.width > limits.max_pixels / header.height)
    throw Error(ErrorCode::unsupported, where,
                "the image has " + std::to_string(header.width) + " x " +
                    std::to_string(header.height) + " pixels; the limit is " +
                    human_count(limits.max_pixels) + " pixels",
                "make it smaller first");
  return header;
}

cv::Mat decode_by_opencv(std::span<const std::byte> file, int mode, const std::string& where) {
  silence_opencv();
  const cv::Mat encoded(1, static_cast<int>(file.size()), CV_8UC1,
                        const_cast<std::byte*>(file.data()));
  cv::Mat pixels;
  try {
    pixels = cv::imdecode(encoded, mode);
  } catch (const cv::Exception&) {
    pixels.release();
  }
  if (pixels.empty())
    throw Error(ErrorCode::bad_format, where, "the image is damaged and cannot be decoded");
  return pixels;
}

Image decode_image(std::span<const std::byte> file, const std::string& where,
                   const ImageLimits& limits) {
  const ImageHeader header = read_checked_header(file, where, limits);
  cv::Mat image = header.first_frame ? decode_first_frame(file, header, where, limits)
                                     : decode_still(file, header, where);
  cv::cvtColor(oriented(image, header.orientation), image, cv::COLOR_BGR2RGB);
  return from_mat(image);
}

Image read_image(const std::filesystem::path& path, const ImageLimits& limits) {
  return decode_image(read_image_bytes(path, limits), path.string(), limits);
}

PictureSize read_image_size(const std::filesystem::path& path, const ImageLimits& limits) {
  const ImageHeader header =
      read_checked_header(read_image_bytes(path, limits), path.string(), limits);
  constexpr int kTurned = 5;  // orientations 5 to 8 exchange the sides
  return header.orientation >= kTurned ? PictureSize{header.height, header.width}
                                       : PictureSize{header.width, header.height};
}

Image resize_image(const Image& image, std::int64_t width, std::int64_t height) {
  if (width == image.width && height == image.height) return image;
  const bool shrinks = width * height < image.width * image.height;
  cv::Mat out;
  cv::resize(view(image), out, cv::Size(static_cast<int>(width), static_cast<int>(height)), 0, 0,
             shrinks ? cv::INTER_AREA : cv::INTER_LANCZOS4);
  return from_mat(out);
}

Image cut_image(const Image& image, std::int64_t left, std::int64_t top, std::int64_t width,
                std::int64_t height) {
  const cv::Rect part(static_cast<int>(left), static_cast<int>(top), static_cast<int>(width),
                      static_cast<int>(height));
  return from_mat(view(image)(part));
}

Image resize_and_crop(const Image& image, PictureSize size) {
  const auto [width, height] = size;
  // The largest rectangle of the wanted proportions, by cross multiplication.
  std::int64_t crop_width = image.width;
  std::int64_t crop_height = image.height;
  if (image.width * height > image.height * width)
    crop_width = std::max<std::int64_t>(1, image.height * width / height);
  else
    crop_height = std::max<std::int64_t>(1, image.width * height / width);
  const Image part = cut_image(image, (image.width - crop_width) / 2,
                               (image.height - crop_height) / 2, crop_width, crop_height);
  return resize_image(part, width, height);
}

Image image_grid(std::span<const Image> images, std::int64_t columns) {
  if (images.empty() || columns < 1) return {};
  const std::int64_t width = images.front().width;
  const std::int64_t height = images.front().height;
  const auto count = static_cast<std::int64_t>(images.size());
  const std::int64_t across = std::min(columns, count);
  const std::int64_t rows = (count + across - 1) / across;
  Image grid{across * width, rows * height, {}};
  grid.pixels.resize(static_cast<std::size_t>(grid.width * grid.height * 3));
  cv::Mat canvas = view(grid);
  for (std::int64_t i = 0; i < count; ++i) {
    const cv::Rect place(static_cast<int>(i % across * width),
                         static_cast<int>(i / across * height), static_cast<int>(width),
                         static_cast<int>(height));
    view(resize_image(images[static_cast<std::size_t>(i)], width, height)).copyTo(canvas(place));
  }
  return grid;
}

std::string image_library_version() { return CV_VERSION; }

}  // namespace ringlet::io
