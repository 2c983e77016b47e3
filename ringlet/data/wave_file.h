// Sound from WAV files (RIFF, Microsoft 1991), and its sampling rate changed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace ringlet::data {

struct Sound {
  std::vector<float> samples;  ///< in [-1, 1]; several channels are averaged
  std::int64_t rate = 0;       ///< samples a second
};

/// Reads PCM of 8, 16, 24 or 32 bits, or 32-bit floating point. Throws Error(not_found | io |
/// bad_format | unsupported).
Sound read_wave(const std::filesystem::path& path);

/// The same sound at another rate: sinc interpolation under a Hann window, cut off at the lower of
/// both Nyquist frequencies. Throws Error(invalid_argument) for a rate below 1.
Sound resampled(const Sound& sound, std::int64_t rate);

}  // namespace ringlet::data
