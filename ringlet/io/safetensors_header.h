// The JSON of a safetensors header; internal to ringlet/io.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ringlet/io/safetensors.h"

namespace ringlet::io {

/// Reads the header text into the tensors (by name) and the metadata. Checks each tensor by itself;
/// how the tensors lie in the file is the caller's to check. Throws Error(bad_format |
/// unsupported).
void read_header_text(std::string_view text, const std::string& where, SafetensorsHeader& header);

std::optional<Dtype> dtype_named(std::string_view name);

[[noreturn]] void fail_format(const std::string& where, const std::string& message,
                              const std::string& hint = {});
[[noreturn]] void fail_tensor(const std::string& where, std::string_view name,
                              const std::string& message);

}  // namespace ringlet::io
