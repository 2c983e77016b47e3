// How often a test kills a run: RINGLET_KILLS=500 asks for more than continuous integration does.
#pragma once

#include <algorithm>
#include <cstdlib>

namespace ringlet {

inline int kill_count(int usual) {
  const char* text = std::getenv("RINGLET_KILLS");
  return text != nullptr ? std::max(1, std::atoi(text)) : usual;
}

}  // namespace ringlet
