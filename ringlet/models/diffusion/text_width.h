// Text embeddings that a network takes.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace ringlet::models {

/// Throws Error(mismatch) unless the last axis of what text encoders made has the width that the
/// network `where` was trained with.
void check_width(const at::Tensor& text, std::int64_t width, const std::string& where,
                 const std::string& what);

}  // namespace ringlet::models
