// Runs the ringlet program as a shell would, and says what came of it.
#pragma once

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ringlet::e2e {

using Arguments = std::vector<std::string>;

struct ProgramResult {
  int status = 0;  ///< exit status, or 128 + the signal that ended the program
  std::string out, err;
};

struct ProgramOptions {
  std::filesystem::path folder = {};          ///< working directory; "" = the test's own
  std::optional<Arguments> environment = {};  ///< "NAME=value" [the test's own, one thread]
  std::function<bool()> interrupt_when =
      {};  ///< once true, the program gets a signal a moment later
  int signal = SIGINT;
  std::chrono::microseconds moment = std::chrono::milliseconds(300);
  std::chrono::microseconds pause = std::chrono::milliseconds(10);  ///< between two looks
};

namespace detail {

inline void check_errno(int error_number, const char* what) {
  if (error_number != 0) throw std::system_error(error_number, std::generic_category(), what);
}

/// A file in memory that takes one stream of the program.
class Capture {
 public:
  Capture() : descriptor_(memfd_create("capture", MFD_CLOEXEC)) {
    if (descriptor_ < 0) check_errno(errno, "memfd_create");
  }
  ~Capture() { close(descriptor_); }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  int descriptor() const { return descriptor_; }
  std::string text() const {
    std::string all;
    char part[4096];
    for (ssize_t size;
         (size = pread(descriptor_, part, sizeof part, static_cast<off_t>(all.size()))) > 0;)
      all.append(part, static_cast<std::size_t>(size));
    return all;
  }

 private:
  int descriptor_;
};

inline std::vector<char*> pointers(Arguments& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

/// The test's own. One thread: several programs at once would wait for each other on few cores.
inline Arguments usual_environment() {
  Arguments out = {"OMP_NUM_THREADS=1"};
  for (char** variable = environ; *variable != nullptr; ++variable)
    if (!std::string_view(*variable).starts_with("OMP_NUM_THREADS=")) out.emplace_back(*variable);
  return out;
}

inline pid_t start(Arguments words, const ProgramOptions& options, const Capture& out,
                   const Capture& err) {
  posix_spawn_file_actions_t actions;
  check_errno(posix_spawn_file_actions_init(&actions), "posix_spawn");
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.descriptor(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.descriptor(), STDERR_FILENO);
  if (!options.folder.empty())
    posix_spawn_file_actions_addchdir_np(&actions, options.folder.c_str());
  Arguments environment = options.environment ? *options.environment : usual_environment();
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> envp = pointers(environment);
  posix_spawnattr_t attributes;
  check_errno(posix_spawnattr_init(&attributes), "posix_spawn");
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP);  // a group of its own, as in a shell
  pid_t child = 0;
  const int problem = posix_spawn(&child, argv[0], &actions, &attributes, argv.data(), envp.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  check_errno(problem, "posix_spawn");
  return child;
}

/// Sends the signal to the program's group, as a terminal does, a moment after the condition holds;
/// gives up when the program ends before.
inline void interrupt(pid_t child, const ProgramOptions& options) {
  siginfo_t ended{};
  while (!options.interrupt_when()) {
    waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT);
    if (ended.si_pid != 0) return;
    std::this_thread::sleep_for(options.pause);
  }
  std::this_thread::sleep_for(options.moment);
  kill(-child, options.signal);
}

}  // namespace detail

/// A program by its path, with nothing on stdin.
inline ProgramResult run_words(Arguments words, const ProgramOptions& options = {}) {
  const detail::Capture out, err;
  const pid_t child = detail::start(std::move(words), options, out, err);
  if (options.interrupt_when) detail::interrupt(child, options);
  int status = 0;
  if (waitpid(child, &status, 0) != child) detail::check_errno(errno, "waitpid");
  return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), out.text(),
          err.text()};
}

/// `ringlet ARGUMENTS…`
inline ProgramResult run_program(Arguments arguments, const ProgramOptions& options = {}) {
  arguments.insert(arguments.begin(), RINGLET_BINARY);
  return run_words(std::move(arguments), options);
}

}  // namespace ringlet::e2e
