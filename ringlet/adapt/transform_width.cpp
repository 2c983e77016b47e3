#include "ringlet/adapt/transform_width.h"

namespace ringlet::adapt {

std::int64_t transform_width(const PartSpec& part, const LayerShape& shape) {
  const auto says = [&](const char* option, const char* word) {
    return part.has(option) && part.word(option) == word;
  };
  if (says("side", "output")) return shape.out;
  return says("over", "patches") ? shape.patch() : shape.in;
}

}  // namespace ringlet::adapt
