// Averages of squares, kept for a matrix as those of its rows and its columns.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/train/trainable.h"

namespace ringlet::train {

/// Moving averages of squares like the parameters, after Shazeer and Stern 2018, "Adafactor:
/// Adaptive Learning Rates with Sublinear Memory Cost", algorithm 4. A tensor of two or more
/// dimensions keeps the means of its last dimension and of the one before; a vector keeps all.
class FactoredAverage {
 public:
  /// `vectors` false: nothing is kept of vectors, and update() must not be asked for them.
  explicit FactoredAverage(const std::vector<Trainable>& parameters, bool vectors = true);

  /// Takes new squares at 1 - decay; returns 1 / root of the average that follows from what is
  /// kept.
  at::Tensor update(std::size_t number, const at::Tensor& squares, double decay);

  bool keeps(std::size_t number) const { return full_[number].defined() || row_[number].defined(); }

  /// Adds "NAME_row.PARAMETER" and "NAME_col.PARAMETER", or "NAME.PARAMETER".
  void add_to(std::map<std::string, at::Tensor>& state, const std::string& name,
              const std::vector<Trainable>& parameters) const;

  /// Of state, for a tensor of these sizes in fp32.
  static std::size_t bytes(at::IntArrayRef sizes, bool vectors = true);

 private:
  std::vector<at::Tensor> row_, column_, full_;
};

/// Root of the mean square: a number on the tensor's device.
at::Tensor root_mean_square(const at::Tensor& tensor);

}  // namespace ringlet::train
