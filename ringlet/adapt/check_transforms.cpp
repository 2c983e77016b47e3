#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/adapter_file_format.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {

void check_transforms(const AdapterSet& set, const std::string& where) {
  // Nothing in a transform is far from the range of 1, where all of them start. Rotations of larger
  // numbers are lost to rounding.
  constexpr double kMost = 1e4;
  const at::NoGradGuard no_grad;
  const auto is_usable = [&](const Transform& transform, const at::Device& device) {
    for (const auto& [name, numbers] : transform.parameters())
      if (numbers.numel() > 0 && numbers.abs().max().item<double>() > kMost) return false;
    try {
      return is_finite(transform.forward(at::ones({1, transform.width()}, device)));
    } catch (const c10::Error&) {  // a matrix without an inverse
      return false;
    }
  };
  for (const AdapterSet::Entry& entry : set.entries())
    for (const auto& transform : entry.adapter->parts().transforms)
      if (!is_usable(*transform, entry.target.layer->device()))
        throw Error(ErrorCode::non_finite, where,
                    "the transform of " + entry.target.full_name() + ", " + entry.adapter->spec() +
                        ", has values that give no finite weight",
                    "the file is damaged, or its training diverged");
}

}  // namespace ringlet::adapt
