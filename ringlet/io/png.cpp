// PNG output and its text chunks (PNG specification, third edition, §11.3.3).
#include <algorithm>
#include <array>
#include <fstream>
#include <optional>
#include <string_view>

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <zlib.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/io/image.h"

namespace ringlet::io {
namespace {

constexpr std::size_t kSignature = 8;
constexpr std::size_t kHeaderChunk = 25;  // length, "IHDR", 13 bytes, CRC

std::string big_endian(std::uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

std::string chunk(std::string_view type, const std::string& body) {
  const std::string content = std::string(type) + body;
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
  return big_endian(static_cast<std::uint32_t>(body.size())) + content +
         big_endian(static_cast<std::uint32_t>(crc));
}

/// UTF-8 to Latin-1, or nothing when a character does not fit.
std::optional<std::string> to_latin1(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      out += text[i];
    } else if ((c == 0xC2 || c == 0xC3) && i + 1 < text.size()) {
      const auto next = static_cast<unsigned char>(text[++i]);
      out += static_cast<char>((c & 0x03) << 6 | (next & 0x3F));
    } else {
      return std::nullopt;
    }
  }
  return out;
}

std::string from_latin1(std::string_view text) {
  std::string out;
  for (const char raw : text) {
    const auto c = static_cast<unsigned char>(raw);
    if (c < 0x80) {
      out += raw;
    } else {
      out += static_cast<char>(0xC0 | c >> 6);
      out += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return out;
}

std::string text_chunk(const std::string& keyword, const std::string& text) {
  using namespace std::literals;
  if (const auto latin1 = to_latin1(text)) return chunk("tEXt", keyword + "\0"s + *latin1);
  // Not compressed, no language, no translated keyword.
  return chunk("iTXt", keyword + "\0\0\0\0\0"s + text);
}

}  // namespace

std::string encode_png(const Image& image, const PngText& text) {
  const cv::Mat rgb(static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
                    const_cast<std::uint8_t*>(image.pixels.data()));
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  std::vector<std::uint8_t> bytes;
  if (!cv::imencode(".png", bgr, bytes) || bytes.size() < kSignature + kHeaderChunk)
    throw Error(ErrorCode::internal, "PNG", "the image could not be encoded");
  std::string out(bytes.begin(), bytes.end());
  std::string chunks;
  for (const auto& [keyword, value] : text) chunks += text_chunk(keyword, value);
  out.insert(kSignature + kHeaderChunk, chunks);
  return out;
}

void write_png(const std::filesystem::path& path, const Image& image, const PngText& text) {
  write_file_atomically(path, encode_png(image, text));
}

std::map<std::string, std::string> read_png_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::not_found, path.string(), "the image cannot be opened");
  std::string bytes;
  std::array<char, 1 << 16> buffer{};
  while (file.read(buffer.data(), buffer.size()) || file.gcount() > 0)
    bytes.append(buffer.data(), static_cast<std::size_t>(file.gcount()));
  if (file.bad()) throw Error(ErrorCode::io, path.string(), "the image cannot be read");
  std::map<std::string, std::string> out;
  if (!bytes.starts_with("\x89PNG")) return out;
  for (std::size_t at = kSignature; bytes.size() >= 12 && at <= bytes.size() - 12;) {
    std::size_t length = 0;
    for (std::size_t i = 0; i < 4; ++i)
      length = length << 8 | static_cast<unsigned char>(bytes[at + i]);
    if (length > bytes.size() - at - 12) break;
    const std::string_view type = std::string_view(bytes).substr(at + 4, 4);
    const std::string_view body = std::string_view(bytes).substr(at + 8, length);
    const std::size_t end = body.find('\0');
    if (end != std::string_view::npos && type == "tEXt")
      out[std::string(body.substr(0, end))] = from_latin1(body.substr(end + 1));
    if (end != std::string_view::npos && type == "iTXt" && body.size() > end + 2 &&
        body[end + 1] == 0) {
      const std::size_t language = body.find('\0', end + 3);
      const std::size_t translated =
          language == std::string_view::npos ? language : body.find('\0', language + 1);
      if (translated != std::string_view::npos)
        out[std::string(body.substr(0, end))] = std::string(body.substr(translated + 1));
    }
    at += 12 + length;
  }
  return out;
}

}  // namespace ringlet::io
