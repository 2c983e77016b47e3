// Where in a network numbers stop being finite.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "ringlet/adapt/set/targets.h"
#include "ringlet/train/task.h"

namespace ringlet::train {

struct NotFiniteLayer {
  std::string name;           ///< in full
  bool finite_input = false;  ///< false: what came before it, and is no layer, has done it
};

/// The first layer whose result holds NaN or infinity, in the order in which `pass` computes them;
/// nothing where all are finite. `pass` may do so with adapters, and asks for no gradients.
std::optional<NotFiniteLayer> first_not_finite_layer(const adapt::Components& components,
                                                     const std::function<void()>& pass);

/// The same for people, behind the name of a loss: " (dog.png); it begins in unet.conv_in". Names
/// the examples of a part of a micro-batch that have no finite loss, where the task knows names.
/// `pass` computes the loss of the part. What cannot be found out is left out: nothing is thrown.
std::string not_finite_text(const Task& task, std::int64_t micro_batch, const BatchPart& part,
                            const std::function<void()>& pass);

}  // namespace ringlet::train
