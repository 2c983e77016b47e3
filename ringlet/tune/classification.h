// What classifying pictures and classifying texts have in common.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ringlet/tune/task.h"

namespace ringlet::tune {

class Classification : public Task {
 public:
  /// Mean cross entropy.
  at::Tensor loss(std::span<const std::size_t> rows) const final;

  /// Accuracy and mean cross entropy.
  std::vector<Score> evaluate() const final;

 protected:
  enum class Part { train, held_out };

  /// Scores of all classes, [rows, classes].
  virtual at::Tensor scores(Part part, std::span<const std::size_t> rows) const = 0;

  /// The numbers of the true classes.
  virtual std::vector<std::int64_t> classes(Part part, std::span<const std::size_t> rows) const = 0;
};

}  // namespace ringlet::tune
