// Other programs as children.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ringlet/core/folder_lock.h"

namespace ringlet {

struct ChildResult {
  int status = 0;                ///< exit status; 128 + n when signal n ended it
  std::uint64_t peak_bytes = 0;  ///< of resident memory
};

/// Says whether children are to be interrupted; may be empty.
using StopChild = std::function<bool()>;

/// Runs a program; the first word is what it is called. Its stdout replaces `output`, its stderr is
/// added to `log`. Once `stop` says so it gets SIGINT, a single time: it is in a process group of
/// its own, so that Ctrl-C does not reach it beside that and kill it. It holds `lock` as well and
/// keeps it when this program is killed. Throws Error(io) when it cannot be started.
ChildResult run_program(const std::filesystem::path& program, const std::vector<std::string>& words,
                        const std::filesystem::path& output, const std::filesystem::path& log,
                        const FolderLock& lock, const StopChild& stop = {});

/// Runs a command of the shell with these arguments after its own; what it prints goes to stderr.
/// It is stopped as by run_program. Throws Error(io) when there is no shell.
ChildResult run_command(const std::string& command, const std::vector<std::string>& arguments,
                        const StopChild& stop = {});

}  // namespace ringlet
