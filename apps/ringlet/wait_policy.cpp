// How long threads wait for each other by spinning, set before LibTorch's OpenMP runtime reads it.
//
// A parallel loop ends when its slowest thread does. GNU's runtime lets the others spin for
// milliseconds, which is quickest on a machine of one's own; where another program wants the same
// processor, they take it from the very thread that they wait for (docs/performance.md has
// measurements). With a short spin, then sleep, they give way. The runtime reads its
// environment when it is loaded, before main, and offers no call to change it. So the program looks
// before that, as the first thing that the dynamic linker runs, and where the variables are not
// set, starts itself again with them. Which takes some 20 ms, so that only verbs that compute do.
#include <algorithm>
#include <array>
#include <climits>
#include <string_view>
#include <vector>

#include <unistd.h>

// Sanitizers are not up at that time.
#ifndef RINGLET_SANITIZED

namespace ringlet::app {
namespace {

constexpr char kShortSpin[] = "GOMP_SPINCOUNT=100000";

constexpr std::array<std::string_view, 6> kComputing = {"generate", "train",   "tune",
                                                        "eval",     "extract", "bench"};

bool chosen_by_user(std::string_view variable) {
  return variable.starts_with("GOMP_SPINCOUNT=") || variable.starts_with("OMP_WAIT_POLICY=") ||
         variable == "OMP_NUM_THREADS=1";  // nobody waits
}

/// Runs before the constructors of all libraries: of the C library only what needs no set-up.
void shorten_spin(int argc, char** argv, char** environment) {
  if (argc < 2 || std::ranges::find(kComputing, std::string_view(argv[1])) == kComputing.end())
    return;
  std::vector<char*> variables;
  for (char** each = environment; *each != nullptr; ++each) {
    if (chosen_by_user(*each)) return;
    variables.push_back(*each);
  }
  variables.push_back(const_cast<char*>(kShortSpin));
  variables.push_back(nullptr);
  std::array<char, PATH_MAX> self{};  // its real name, which tools show
  if (readlink("/proc/self/exe", self.data(), self.size() - 1) <= 0) return;
  execve(self.data(), argv, variables.data());  // comes back only where it failed: nothing is lost
}

[[gnu::section(".preinit_array"), gnu::used]] void (*first)(int, char**, char**) = shorten_spin;

}  // namespace
}  // namespace ringlet::app

#endif
