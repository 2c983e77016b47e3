#include "ringlet/pipeline/control.h"

#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::pipeline {

const char* name_of(ControlKind kind) {
  return kind == ControlKind::encoder ? "encoder" : "controlnet";
}

at::Tensor control_tensor(const io::Image& picture) { return control_tensor(image_bytes(picture)); }

at::Tensor control_tensor(const at::Tensor& bytes) { return pixels_of_bytes(bytes) * 0.5 + 0.5; }

}  // namespace ringlet::pipeline
