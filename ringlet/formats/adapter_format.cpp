#include "ringlet/formats/adapter_format.h"

namespace ringlet::formats {

const char* name_of(AdapterFormat format) {
  for (const auto& [name, one] : kAdapterFormatNames)
    if (one == format) return name;
  return "";
}

Naming naming_of(AdapterFormat format) {
  if (format == AdapterFormat::peft) return Naming::peft;
  if (format == AdapterFormat::diffusers) return Naming::diffusers;
  if (format == AdapterFormat::comfyui) return Naming::comfyui;
  return Naming::kohya;
}

}  // namespace ringlet::formats
