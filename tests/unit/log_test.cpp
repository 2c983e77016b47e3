#include "ringlet/core/log.h"

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/log_capture.h"

namespace ringlet {
namespace {

TEST(Log, MessagesArriveInOrderWithTheirLevel) {
  const LogCapture capture;
  log(LogLevel::info, "one");
  log(LogLevel::warning, "two");
  ASSERT_EQ(capture.messages().size(), 2u);
  EXPECT_EQ(capture.messages()[0], std::pair(LogLevel::info, std::string("one")));
  EXPECT_EQ(capture.messages()[1], std::pair(LogLevel::warning, std::string("two")));
}

TEST(Log, WithoutASinkMessagesAreDropped) {
  const LogSink before = set_log_sink({});
  EXPECT_NO_THROW(log(LogLevel::warning, "nobody listens"));
  set_log_sink(before);
}

TEST(Log, SettingASinkReturnsThePreviousOne) {
  std::string heard;
  const LogSink original = set_log_sink([&](LogLevel, std::string_view text) { heard = text; });
  const LogSink mine = set_log_sink({});
  ASSERT_TRUE(mine);
  mine(LogLevel::info, "still callable");
  EXPECT_EQ(heard, "still callable");
  EXPECT_FALSE(set_log_sink(original));
}

// A throwing sink must not leave the lock behind, or the next message would hang.
TEST(Log, ASinkThatThrowsDoesNotBlockTheNext) {
  const LogSink before =
      set_log_sink([](LogLevel, std::string_view) { throw std::runtime_error("full"); });
  EXPECT_THROW(log(LogLevel::info, "a"), std::runtime_error);
  set_log_sink(before);
  const LogCapture capture;
  log(LogLevel::info, "b");
  EXPECT_EQ(capture.messages().size(), 1u);
}

TEST(Log, AThreadsOwnSinkTakesItsMessagesAlone) {
  const LogCapture capture;
  std::string outer, inner;
  const ThreadLogSink first([&](LogLevel, std::string_view text) { outer += text; });
  log(LogLevel::info, "a");
  {
    const ThreadLogSink second([&](LogLevel, std::string_view text) { inner += text; });
    log(LogLevel::info, "b");
    std::thread([] { log(LogLevel::info, "other"); }).join();
  }
  log(LogLevel::info, "c");
  EXPECT_EQ(outer, "ac");
  EXPECT_EQ(inner, "b");
  ASSERT_EQ(capture.messages().size(), 1u);
  EXPECT_EQ(capture.messages()[0].second, "other");
}

TEST(Log, ThreadsDoNotLoseMessages) {
  const LogCapture capture;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 250; ++i) log(LogLevel::debug, "message");
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(capture.messages().size(), 1000u);
}

}  // namespace
}  // namespace ringlet
