// Two ranks of a data-parallel run as two threads.
#pragma once

#include <array>
#include <barrier>
#include <cstddef>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include <ATen/ATen.h>

namespace ringlet::train {

/// Sums tensors of two threads, rank 0's first.
class TwoRanks {
 public:
  std::function<void(std::vector<at::Tensor>&)> reduction(std::size_t rank) {
    return [this, rank](std::vector<at::Tensor>& tensors) {
      given_[rank] = tensors;
      barrier_.arrive_and_wait();
      std::vector<at::Tensor> sums;
      for (std::size_t i = 0; i < tensors.size(); ++i) sums.push_back(given_[0][i] + given_[1][i]);
      barrier_.arrive_and_wait();  // both have read
      for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].copy_(sums[i]);
    };
  }

 private:
  std::array<std::vector<at::Tensor>, 2> given_;
  std::barrier<> barrier_{2};
};

/// Runs `work` as both ranks at once.
template <class Work>
void as_two_ranks(const Work& work) {
  std::exception_ptr failed;
  std::thread second([&] {
    try {
      work(1);
    } catch (...) {
      failed = std::current_exception();
    }
  });
  work(0);
  second.join();
  if (failed) std::rethrow_exception(failed);
}

}  // namespace ringlet::train
