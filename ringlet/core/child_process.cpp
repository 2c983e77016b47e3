#include "ringlet/core/child_process.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ringlet/core/error.h"

extern char** environ;

namespace ringlet {
namespace {

Error cannot(const std::string& what, const std::string& where, int problem) {
  return {ErrorCode::io, where, what + ": " + std::strerror(problem)};
}

/// What posix_spawn is told, destroyed at the end.
struct Spawn {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  Spawn() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // group 0: the child's own
  }
  ~Spawn() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;
};

/// Starts `program` with these words, the first of which is its name.
pid_t start(const char* program, std::vector<std::string> words, const Spawn& spawn) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  if (const int problem =
          posix_spawn(&child, program, &spawn.actions, &spawn.attributes, argv.data(), environ))
    throw cannot("the program cannot be started", words.front(), problem);
  return child;
}

/// Looks now and then: the signal of an interrupt may reach any thread but this one.
ChildResult wait_for(pid_t child, const std::string& name, const StopChild& stop) {
  constexpr auto kPause = std::chrono::milliseconds(50);
  int status = 0;
  rusage usage{};
  bool told = false;
  for (pid_t ended = 0; ended != child;) {
    ended = wait4(child, &status, WNOHANG, &usage);
    if (ended < 0 && errno != EINTR) throw cannot("lost track of the program", name, errno);
    if (!told && stop && stop()) {
      kill(-child, SIGINT);  // its group: a shell may not be the one that works
      told = true;
    }
    if (ended != child) std::this_thread::sleep_for(kPause);
  }
  constexpr int kSignalBase = 128;
  constexpr std::uint64_t kKibi = 1024;  // ru_maxrss counts these
  return {WIFEXITED(status) ? WEXITSTATUS(status) : kSignalBase + WTERMSIG(status),
          static_cast<std::uint64_t>(usage.ru_maxrss) * kKibi};
}

}  // namespace

ChildResult run_program(const std::filesystem::path& program, const std::vector<std::string>& words,
                        const std::filesystem::path& output, const std::filesystem::path& log,
                        const FolderLock& lock, const StopChild& stop) {
  constexpr int kReadable = 0644;
  Spawn spawn;
  posix_spawn_file_actions_addopen(&spawn.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&spawn.actions, STDOUT_FILENO, output.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, kReadable);
  posix_spawn_file_actions_addopen(&spawn.actions, STDERR_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, kReadable);
  // Onto itself: that keeps it open in the child, and open in no other.
  posix_spawn_file_actions_adddup2(&spawn.actions, lock.descriptor(), lock.descriptor());
  return wait_for(start(program.c_str(), words, spawn), output.string(), stop);
}

ChildResult run_command(const std::string& command, const std::vector<std::string>& arguments,
                        const StopChild& stop) {
  std::vector<std::string> words = {"sh", "-c", command + " \"$@\"", "sh"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  Spawn spawn;
  posix_spawn_file_actions_addopen(&spawn.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&spawn.actions, STDERR_FILENO, STDOUT_FILENO);
  return wait_for(start("/bin/sh", std::move(words), spawn), command, stop);
}

}  // namespace ringlet
