// Log callback: the library never prints; programs decide where messages go.
#pragma once

#include <functional>
#include <string_view>

namespace ringlet {

enum class LogLevel { debug, info, warning };

using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Installs the receiver of all library messages and returns the previous one. An empty sink (the
/// initial state) drops them. Thread-safe.
LogSink set_log_sink(LogSink sink);

/// While it lives, messages of the thread that made it go to its sink instead of the installed one:
/// those of one request, where several run in one program. Destroy it on the same thread, the last
/// one made first. Messages of threads that the library starts itself go to the installed sink.
class ThreadLogSink {
 public:
  explicit ThreadLogSink(LogSink sink);
  ~ThreadLogSink();
  ThreadLogSink(const ThreadLogSink&) = delete;
  ThreadLogSink& operator=(const ThreadLogSink&) = delete;

 private:
  friend void log(LogLevel level, std::string_view message);
  LogSink sink_;
  const ThreadLogSink* before_;
};

/// Sends a message to the thread's sink, or else to the installed one.
void log(LogLevel level, std::string_view message);

}  // namespace ringlet
