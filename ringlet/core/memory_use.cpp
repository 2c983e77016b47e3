#include "ringlet/core/memory_use.h"

#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include <malloc.h>

namespace ringlet {
namespace {

/// A line of /proc/self/status, "VmRSS:   448112 kB", in bytes.
std::uint64_t status_bytes(std::string_view key) {
  constexpr std::uint64_t kKibi = 1024;
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * kKibi;
  return 0;
}

}  // namespace

std::uint64_t resident_bytes() { return status_bytes("VmRSS:"); }

std::uint64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

void return_free_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace ringlet
