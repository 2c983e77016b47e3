#include "ringlet/core/picture_size.h"

#include <nlohmann/json.hpp>

namespace ringlet {

void to_json(nlohmann::json& json, const PictureSize& size) {
  if (size.is_square())
    json = size.width;
  else
    json = size.text();
}

}  // namespace ringlet
