// Collects the library's log messages while it lives.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/log.h"

namespace ringlet {

class LogCapture {
 public:
  LogCapture()
      : before_(set_log_sink([this](LogLevel level, std::string_view text) {
          messages_.emplace_back(level, text);
        })) {}
  ~LogCapture() { set_log_sink(before_); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  const std::vector<std::pair<LogLevel, std::string>>& messages() const { return messages_; }

  /// All warnings in one text.
  std::string warnings() const {
    std::string all;
    for (const auto& [level, text] : messages_)
      if (level == LogLevel::warning) all += text + "\n";
    return all;
  }

 private:
  std::vector<std::pair<LogLevel, std::string>> messages_;
  LogSink before_;
};

}  // namespace ringlet
