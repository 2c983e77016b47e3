// Runs a function in several threads that start at the same time.
#pragma once

#include <barrier>
#include <thread>
#include <vector>

namespace ringlet {

/// Calls function(thread) in `count` threads, 0 … count - 1, and waits for all.
template <class Function>
void together(int count, const Function& function) {
  std::barrier start(count);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < count; ++thread)
    threads.emplace_back([&, thread] {
      start.arrive_and_wait();
      function(thread);
    });
}

}  // namespace ringlet
