// Framing: tensorflow/core/lib/io/record_writer.cc. Fields: tensorflow/core/util/event.proto and
// framework/summary.proto. Encoding: protobuf.dev/programming-guides/encoding.
#include "ringlet/train/event_file.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::uint32_t, 256> crc32c_table() {
  constexpr std::uint32_t kPolynomial = 0x82F63B78;  // 0x1EDC6F41 with its bits reversed
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}

/// Masked, because the checksum of bytes that contain checksums detects less.
std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

template <class Unsigned>
std::string little_endian(Unsigned value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof(Unsigned); ++i) out += static_cast<char>(value >> 8 * i & 255);
  return out;
}

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  return out + static_cast<char>(value);
}

enum class Wire : std::uint8_t { integer = 0, eight_bytes = 1, sized = 2, four_bytes = 5 };

std::string key(int field, Wire wire) {
  return varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire));
}

std::string integer_field(int field, std::int64_t value) {
  return key(field, Wire::integer) + varint(static_cast<std::uint64_t>(value));
}

std::string double_field(int field, double value) {
  return key(field, Wire::eight_bytes) + little_endian(std::bit_cast<std::uint64_t>(value));
}

std::string float_field(int field, float value) {
  return key(field, Wire::four_bytes) + little_endian(std::bit_cast<std::uint32_t>(value));
}

/// Texts, bytes and messages.
std::string sized_field(int field, std::string_view content) {
  return key(field, Wire::sized) + varint(content.size()) + std::string(content);
}

std::string record(const std::string& data) {
  const std::string length = little_endian(static_cast<std::uint64_t>(data.size()));
  return length + little_endian(masked_crc(length)) + data + little_endian(masked_crc(data));
}

/// TensorBoard reads the files of a folder in the order of their names, so a name that is taken is
/// followed by a later one.
AppendFile new_event_file(const fs::path& folder, double seconds) {
  for (auto second = static_cast<std::int64_t>(seconds);; ++second) {
    std::string digits = std::to_string(second);
    if (digits.size() < 10) digits.insert(0, 10 - digits.size(), '0');
    auto file = AppendFile::create(folder / ("events.out.tfevents." + digits + ".ringlet"));
    if (file) return std::move(*file);
  }
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = crc32c_table();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes)
    crc = kTable[(crc ^ static_cast<unsigned char>(byte)) & 255] ^ crc >> 8;
  return ~crc;
}

double system_wall_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

EventFile::EventFile(const fs::path& folder, WallClock wall_time)
    : wall_time_(std::move(wall_time)), file_(new_event_file(folder, wall_time_())) {
  file_.append(record(double_field(1, wall_time_()) + sized_field(3, "brain.Event:2")));
}

void EventFile::add_scalar(std::string_view tag, std::int64_t step, double value) {
  add_value(tag, step, float_field(2, static_cast<float>(value)));
}

void EventFile::add_image(std::string_view tag, std::int64_t step, std::string_view png,
                          std::int64_t width, std::int64_t height) {
  constexpr std::int64_t kRgb = 3;
  add_value(tag, step,
            sized_field(4, integer_field(1, height) + integer_field(2, width) +
                               integer_field(3, kRgb) + sized_field(4, png)));
}

void EventFile::restart_at(std::int64_t step) {
  constexpr std::int64_t kStart = 1;
  file_.append(record(double_field(1, wall_time_()) + integer_field(2, step) +
                      sized_field(7, integer_field(1, kStart))));
}

void EventFile::add_value(std::string_view tag, std::int64_t step, std::string_view content) {
  if (!is_utf8(tag))
    throw Error(ErrorCode::invalid_argument, std::string(tag), "the tag is not UTF-8");
  const std::string value = sized_field(1, tag) + std::string(content);
  file_.append(record(double_field(1, wall_time_()) + integer_field(2, step) +
                      sized_field(5, sized_field(1, value))));
}

}  // namespace ringlet::train
