// A whole file at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

namespace ringlet {

/// The bytes of a regular file. Throws Error(not_found | io), and Error(unsupported) for more than
/// `most` bytes.
std::string read_file(const std::filesystem::path& path,
                      std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

}  // namespace ringlet
