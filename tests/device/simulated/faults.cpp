#include "tests/device/simulated/faults.h"

#include <array>
#include <csignal>
#include <cstring>

#include <execinfo.h>
#include <unistd.h>

#include "tests/device/simulated/memory.h"

namespace ringlet::device {
namespace {

/// Calls only what a signal handler may call.
void on_fault(int number, siginfo_t* info, void*) {
  if (device_of(info->si_addr) < 0) {  // not ours: it happens again, without this handler
    std::signal(number, SIG_DFL);
    return;
  }
  constexpr char kText[] = "simulated device: host code touched device memory; called from:\n";
  if (write(STDERR_FILENO, kText, sizeof kText - 1) < 0) _exit(kFaultStatus);
  std::array<void*, 64> frames;
  backtrace_symbols_fd(frames.data(), backtrace(frames.data(), frames.size()), STDERR_FILENO);
  _exit(kFaultStatus);
}

}  // namespace

void catch_faults() {
  std::array<void*, 1> frames;
  backtrace(frames.data(), 1);  // its first call allocates memory
  device_of(nullptr);           // and so does the devices' memory
  struct sigaction action = {};
  action.sa_sigaction = &on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace ringlet::device
