// System calls that survive signals and can be told to fail; internal to ringlet/core.
#pragma once

#include <cerrno>

#include "ringlet/core/failpoint.h"

namespace ringlet {

/// A system call that an armed failpoint can make fail, repeated while signals interrupt it. The
/// problem is in errno when the result is negative.
template <class Call>
auto retried(const char* name, Call call) {
  while (true) {
    const int injected = failpoint(name);
    const auto result = injected != 0 ? decltype(call())(-1) : call();
    if (injected != 0) errno = injected;
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace ringlet
