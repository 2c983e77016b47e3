#include "ringlet/pipeline/control.h"

#include <algorithm>

#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::pipeline {

const char* name_of(ControlKind kind) {
  return std::ranges::find(kControlKindNames, kind, [](const auto& row) { return row.second; })
      ->first;
}

at::Tensor control_tensor(const io::Image& picture) { return control_tensor(image_bytes(picture)); }

at::Tensor control_tensor(const at::Tensor& stored) {
  return stored.scalar_type() == at::kByte ? pixels_of_bytes(stored) * 0.5 + 0.5 : stored;
}

}  // namespace ringlet::pipeline
