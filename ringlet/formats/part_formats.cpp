#include <algorithm>

#include "ringlet/adapt/registry.h"
#include "ringlet/formats/part_format.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {

const std::vector<PartFormat>& part_formats() {
  static const std::vector<PartFormat> formats = {
      magnitude_format(), lokr_format(),       loha_format(),    oft_format(),
      boft_format(),      hra_format(),        glora_format(),   ia3_format(),
      fourierft_format(), vera_format(),       adalora_format(), lora_format(),
      saved_format(),     difference_format(), bias_format(),    common_format()};
  return formats;
}

bool PartFormat::holds(AdapterFormat format) const {
  return std::ranges::find(held_by, format) != held_by.end();
}

const adapt::PartSpec& leading_part(const adapt::Method& method) {
  for (const adapt::PartKind kind : {adapt::PartKind::transform, adapt::PartKind::residual})
    for (const adapt::PartSpec& part : method.parts)
      if (adapt::find_part(part.name).kind == kind) return part;
  return method.parts.front();
}

const PartFormat* find_format(std::string_view part) {
  const auto found = std::ranges::find_if(
      part_formats(), [&](const PartFormat& format) { return format.part == part; });
  return found == part_formats().end() ? nullptr : &*found;
}

}  // namespace ringlet::formats
