// WAV files of every form, and the sampling rate changed.
#include "ringlet/data/wave_file.h"

#include <cmath>
#include <fstream>
#include <numbers>

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::data {
namespace {

std::string little(std::uint32_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
  return out;
}

std::string wave(std::uint32_t kind, std::uint32_t channels, std::uint32_t bits,
                 const std::string& samples, std::uint32_t rate = 8000) {
  const std::string format = little(kind, 2) + little(channels, 2) + little(rate, 4) +
                             little(rate * channels * bits / 8, 4) +
                             little(channels * bits / 8, 2) + little(bits, 2);
  return "RIFF" + little(static_cast<std::uint32_t>(36 + samples.size()), 4) + "WAVE" + "fmt " +
         little(16, 4) + format + "LIST" + little(3, 4) + "abc" + std::string(1, '\0') + "data" +
         little(static_cast<std::uint32_t>(samples.size()), 4) + samples;
}

class WaveFile : public testing::Test {
 protected:
  Sound read(const std::string& bytes) const {
    std::ofstream(folder_ / "a.wav", std::ios::binary) << bytes;
    return read_wave(folder_ / "a.wav");
  }
  TemporaryFolder folder_;
};

TEST_F(WaveFile, ReadsEveryForm) {
  EXPECT_EQ(read(wave(1, 1, 8, std::string("\x80\xC0\x00", 3))).samples,
            (std::vector<float>{0.0f, 0.5f, -1.0f}));
  EXPECT_EQ(read(wave(1, 1, 16, little(0x4000, 2) + little(0x8000, 2))).samples,
            (std::vector<float>{0.5f, -1.0f}));
  EXPECT_EQ(read(wave(1, 1, 24, little(0xC00000, 3))).samples, (std::vector<float>{-0.5f}));
  EXPECT_EQ(read(wave(1, 1, 32, little(0x40000000, 4))).samples, (std::vector<float>{0.5f}));
  EXPECT_EQ(read(wave(3, 1, 32, little(0x3F000000, 4))).samples, (std::vector<float>{0.5f}));
  EXPECT_EQ(read(wave(1, 2, 16, little(0x4000, 2) + little(0, 2))).samples,
            (std::vector<float>{0.25f}));
  EXPECT_EQ(read(wave(1, 1, 16, little(0, 2), 22050)).rate, 22050);
}

TEST_F(WaveFile, RefusesWhatIsNone) {
  const std::string whole = wave(1, 1, 16, little(0x4000, 2));
  expect_error(ErrorCode::bad_format, "not a WAV file", [&] { read("hello"); });
  expect_error(ErrorCode::unsupported, "16-bit PCM", [&] { read(wave(2, 1, 4, "x")); });
  expect_error(ErrorCode::bad_format, "no channels", [&] { read(wave(1, 0, 16, "x")); });
  expect_error(ErrorCode::bad_format, "not a finite",
               [&] { read(wave(3, 1, 32, little(0x7F800000, 4))); });
  expect_error(ErrorCode::not_found, "does not exist", [&] { read_wave(folder_ / "b.wav"); });
  for (std::size_t length = 0; length < whole.size() - 2; ++length)
    EXPECT_THROW(read(whole.substr(0, length)), Error) << length;
}

TEST(Resampled, KeepsTonesThatBothRatesHold) {
  Sound tone{{}, 22050};
  const double pitch = 440.0;
  const auto at = [&](double time) { return std::sin(2.0 * std::numbers::pi * pitch * time); };
  for (int i = 0; i < 4000; ++i) tone.samples.push_back(static_cast<float>(at(i / 22050.0)));
  const Sound lower = resampled(tone, 16000);
  EXPECT_EQ(lower.rate, 16000);
  for (std::size_t i = 100; i + 100 < lower.samples.size(); ++i)
    EXPECT_NEAR(lower.samples[i], at(static_cast<double>(i) / 16000.0), 3e-3) << i;
  EXPECT_EQ(resampled(tone, 22050).samples, tone.samples);
  expect_error(ErrorCode::invalid_argument, "positive", [&] { resampled(tone, 0); });
}

}  // namespace
}  // namespace ringlet::data
