// Work in a process of its own, whose limits and death are not the tests'.
#pragma once

#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ringlet {

/// What `work` returns in a forked child, as the child's exit status: 6 where it throws, -1 where
/// there is no child, or it did not end by itself.
template <class Work>
int status_of_child(const Work& work) {
  constexpr int kThrown = 6;
  const pid_t child = ::fork();
  if (child < 0) return -1;
  if (child == 0) {
    at::set_num_threads(1);  // the parent's worker threads are not in the child
    int result = kThrown;
    try {
      result = work();
    } catch (...) {  // the exit status tells
    }
    ::_exit(result);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

}  // namespace ringlet
