#include "ringlet/pipeline/control.h"

#include "ringlet/core/error.h"
#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::pipeline {

ControlKind control_kind_from_name(std::string_view name) {
  if (name == "encoder") return ControlKind::encoder;
  if (name == "controlnet") return ControlKind::controlnet;
  throw Error(ErrorCode::invalid_argument, Field("control_network"),
              "\"" + std::string(name) + "\" is not known", "use encoder or controlnet");
}

const char* name_of(ControlKind kind) {
  return kind == ControlKind::encoder ? "encoder" : "controlnet";
}

at::Tensor control_tensor(const io::Image& picture) { return control_tensor(image_bytes(picture)); }

at::Tensor control_tensor(const at::Tensor& bytes) { return pixels_of_bytes(bytes) * 0.5 + 0.5; }

}  // namespace ringlet::pipeline
