// How many threads a training run computes with, on a machine that may do other work, too.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace ringlet::train {

struct ThreadChoice {
  int threads = 1;
  int most = 1;       ///< what a quiet machine would take
  double busy = 0.0;  ///< processors that other programs use
  /// Seconds of a pass with so many threads; empty where nothing was to be chosen.
  std::vector<std::pair<int, double>> measured;

  /// For the log: "1 of 2, since other programs keep 1.9 processors busy: 0.45 s a pass with 1, …".
  std::string text() const;
};

/// Below this, other programs are no reason to measure.
inline constexpr double kQuiet = 0.25;

/// The number of threads that is fastest for `pass`, forward and backward of one batch, while other
/// programs keep `busy` processors busy. On a quiet machine it is `most`, without a measurement:
/// sums depend on the number of threads in their last digits, and runs on a quiet machine are equal
/// bit for bit. Otherwise `pass` is called with `most`, what is free and halves of it, until fewer
/// are no longer faster. Afterwards LibTorch computes with the chosen number.
ThreadChoice choose_threads(int most, double busy, const std::function<void()>& pass);

}  // namespace ringlet::train
