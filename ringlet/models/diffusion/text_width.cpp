#include "ringlet/models/diffusion/text_width.h"

#include "ringlet/core/error.h"

namespace ringlet::models {

void check_width(const at::Tensor& text, std::int64_t width, const std::string& where,
                 const std::string& what) {
  if (text.size(-1) == width) return;
  throw Error(ErrorCode::mismatch, where,
              what + " of width " + std::to_string(text.size(-1)) + ", and the network takes " +
                  std::to_string(width),
              "the text encoders belong to another model");
}

}  // namespace ringlet::models
