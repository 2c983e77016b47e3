// Structure-aware mutation of safetensors files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ringlet::fuzz {

/// Changes one to three fields of the file (names, dtypes, shapes, offsets, metadata, whole
/// tensors, data size, header length) and writes it anew. Files whose header is no JSON object come
/// back unchanged. Blind byte mutation would hardly ever get past the JSON parser.
std::string mutate_safetensors(std::string_view file, std::uint32_t seed);

}  // namespace ringlet::fuzz
