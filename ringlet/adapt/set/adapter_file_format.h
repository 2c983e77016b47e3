// What the reading and the writing of ringlet's adapter files share; see adapter_file.h.
#pragma once

#include <cstdint>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

inline constexpr std::string_view kPrefix = "ringlet.";   ///< of our metadata
inline constexpr std::string_view kControl = "control.";  ///< of a control encoder's tensors
inline constexpr std::int64_t kFormat = 1;

bool is_finite(const at::Tensor& tensor);

/// The types that adapters may be stored in: F32, F16, BF16.
bool is_storage_type(at::ScalarType type);

}  // namespace ringlet::adapt
