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

/// Sends a message to the installed sink.
void log(LogLevel level, std::string_view message);

}  // namespace ringlet
