#include "ringlet/data/wave_file.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <string>
#include <string_view>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
constexpr std::uint32_t kPcm = 1, kFloat = 3, kExtensible = 0xFFFE;

struct Format {
  std::uint32_t kind = 0, channels = 0, rate = 0, bits = 0;
};

class Bytes {
 public:
  Bytes(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  std::uint32_t little(std::size_t at, std::size_t count) const {
    if (at + count > bytes_.size())
      throw Error(ErrorCode::bad_format, where_, "the sound file is truncated",
                  "copy or record it again");
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; ++i)
      value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes_[at + i])) << (8 * i);
    return value;
  }
  bool matches(std::size_t at, std::string_view text) const {
    return bytes_.substr(std::min(at, bytes_.size())).starts_with(text);
  }
  std::size_t size() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  const std::string& where_;
};

Format read_format(const Bytes& file, std::size_t at, std::size_t length,
                   const std::string& where) {
  Format format{file.little(at, 2), file.little(at + 2, 2), file.little(at + 4, 4),
                file.little(at + 14, 2)};
  if (format.kind == kExtensible && length >= 26) format.kind = file.little(at + 24, 2);
  const bool pcm = format.kind == kPcm && (format.bits == 8 || format.bits == 16 ||
                                           format.bits == 24 || format.bits == 32);
  if (!pcm && !(format.kind == kFloat && format.bits == 32))
    throw Error(ErrorCode::unsupported, where, "an audio encoding that ringlet does not support",
                "convert it to 16-bit PCM");
  if (format.channels == 0 || format.rate == 0)
    throw Error(ErrorCode::bad_format, where, "the sound file has no channels or no rate");
  return format;
}

float sample(const Bytes& file, std::size_t at, const Format& format) {
  const std::uint32_t raw = file.little(at, format.bits / 8);
  if (format.kind == kFloat) return std::bit_cast<float>(raw);
  if (format.bits == 8) return (static_cast<float>(raw) - 128.0f) / 128.0f;
  // The sign is the highest of the bits that are there.
  const auto shifted = static_cast<std::int32_t>(raw << (32 - format.bits));
  return static_cast<float>(static_cast<double>(shifted) / 2147483648.0);
}

}  // namespace

Sound read_wave(const fs::path& path) {
  const std::string where = path.string();
  const std::string content = read_file(path, kMostBytes);
  const Bytes file(content, where);
  if (!file.matches(0, "RIFF") || !file.matches(8, "WAVE"))
    throw Error(ErrorCode::bad_format, where, "is not a WAV file");
  Format format;
  for (std::size_t at = 12; at + 8 <= file.size();) {
    std::size_t length = file.little(at + 4, 4);
    if (file.matches(at, "fmt ")) format = read_format(file, at + 8, length, where);
    if (file.matches(at, "data")) {
      if (format.kind == 0)
        throw Error(ErrorCode::bad_format, where, "the format is missing before the samples");
      length = std::min(length, file.size() - at - 8);  // programs that pipe write no length
      const std::size_t frame = format.channels * (format.bits / 8);
      Sound sound{{}, format.rate};
      for (std::size_t i = at + 8; i + frame <= at + 8 + length; i += frame) {
        float sum = 0.0f;
        for (std::size_t c = 0; c < format.channels; ++c)
          sum += sample(file, i + c * (format.bits / 8), format);
        sound.samples.push_back(sum / static_cast<float>(format.channels));
      }
      if (!std::ranges::all_of(sound.samples, [](float value) { return std::isfinite(value); }))
        throw Error(ErrorCode::bad_format, where, "a sample is not a finite number");
      return sound;
    }
    at += 8 + length + length % 2;
  }
  throw Error(ErrorCode::bad_format, where, "holds no samples");
}

Sound resampled(const Sound& sound, std::int64_t rate) {
  if (rate < 1 || sound.rate < 1)
    throw Error(ErrorCode::invalid_argument, "sound", "a sampling rate must be positive");
  if (rate == sound.rate) return sound;
  constexpr double kZeros = 12.0;  // of the sinc on each side
  const double step = static_cast<double>(sound.rate) / static_cast<double>(rate);
  const double cut = std::min(1.0, 1.0 / step), reach = kZeros / cut;
  const auto count =
      static_cast<std::int64_t>(std::floor(static_cast<double>(sound.samples.size()) / step));
  Sound out{{}, rate};
  const auto last = static_cast<std::int64_t>(sound.samples.size()) - 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const double place = static_cast<double>(i) * step;
    double sum = 0.0;
    const auto begin = std::max<std::int64_t>(0, std::llround(std::ceil(place - reach)));
    const auto end = std::min<std::int64_t>(last, std::llround(std::floor(place + reach)));
    for (std::int64_t k = begin; k <= end; ++k) {
      const double distance = place - static_cast<double>(k);
      const double angle = std::numbers::pi * distance * cut;
      const double sinc = angle == 0.0 ? 1.0 : std::sin(angle) / angle;
      const double window = 0.5 + 0.5 * std::cos(std::numbers::pi * distance / reach);
      sum += sinc * window * cut * static_cast<double>(sound.samples[static_cast<std::size_t>(k)]);
    }
    out.samples.push_back(static_cast<float>(sum));
  }
  return out;
}

}  // namespace ringlet::data
