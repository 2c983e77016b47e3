#include "ringlet/pipeline/control.h"

#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::pipeline {

const char* name_of(ControlKind kind) {
  return kind == ControlKind::encoder ? "encoder" : "controlnet";
}

at::Tensor control_tensor(const io::Image& picture) { return image_to_tensor(picture) * 0.5 + 0.5; }

}  // namespace ringlet::pipeline
