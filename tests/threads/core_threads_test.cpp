// What several threads share below the networks. CI runs these under ThreadSanitizer as well.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/core/log.h"
#include "ringlet/core/processors.h"
#include "ringlet/core/random.h"
#include "ringlet/core/sha256.h"
#include "ringlet/data/picture_check.h"
#include "ringlet/io/image.h"
#include "tests/temporary_folder.h"
#include "tests/threads/together.h"

namespace ringlet {
namespace {

TEST(Threads, LogSinksAreExchangedWhileOthersLog) {
  const LogSink before = set_log_sink({});
  std::atomic<int> received{0};
  together(4, [&](int thread) {
    for (int i = 0; i < 200; ++i) {
      if (thread == 0) set_log_sink([&](LogLevel, std::string_view) { ++received; });
      log(LogLevel::debug, "message");
    }
  });
  set_log_sink(before);
  EXPECT_GE(received, 200);  // the first thread's own, at least
  EXPECT_LE(received, 800);
}

TEST(Threads, RandomStreamsDoNotDependOnWhoDraws) {
  const Random random(7);
  const auto draw = [&](int sample) {
    std::array<float, 257> numbers{};
    random.stream("noise", 3, static_cast<std::uint64_t>(sample)).fill_normal(numbers);
    return numbers;
  };
  std::vector<std::array<float, 257>> drawn(4);
  together(4, [&](int thread) { drawn[static_cast<std::size_t>(thread)] = draw(thread); });
  for (int thread = 0; thread < 4; ++thread)
    EXPECT_EQ(drawn[static_cast<std::size_t>(thread)], draw(thread));
}

TEST(Threads, ProcessorsAreCountedBySeveralAtOnce) {
  together(3, [](int) {
    EXPECT_GE(allowed_processors(), 1);
    EXPECT_GE(busy_processors(std::chrono::milliseconds(5)), 0.0);
  });
}

TEST(Threads, PicturesAreCheckedByTwoCallersAtOnce) {
  const TemporaryFolder folder;
  std::vector<std::filesystem::path> files;
  std::vector<std::string> expected;
  for (int i = 0; i < 6; ++i) {
    io::Image image{.width = 8, .height = 8, .pixels = std::vector<std::uint8_t>(8 * 8 * 3)};
    image.pixels[0] = static_cast<std::uint8_t>(i);
    files.push_back(folder / (std::to_string(i) + ".png"));
    io::write_png(files.back(), image);
    expected.push_back(sha256_file(files.back()));
  }
  together(2, [&](int) {
    std::atomic<int> seen{0};
    EXPECT_EQ(data::check_pictures(files, "pictures",
                                   {.threads = 3, .also = [&](auto, const auto&) { ++seen; }}),
              expected);
    EXPECT_EQ(seen, 6);
  });
}

}  // namespace
}  // namespace ringlet
