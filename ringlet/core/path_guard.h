// Names from files and requests become paths only here.
#pragma once

#include <filesystem>
#include <string_view>

namespace ringlet {

/// root / name for a plain file name taken from untrusted text (a shard index, a request). Throws
/// Error(bad_format) for a name with a path separator, "..", NUL or a control character, and
/// Error(not_found) when nothing is there. A symbolic link that the user placed in the folder is
/// followed: download caches store weights that way.
std::filesystem::path resolve_under(const std::filesystem::path& root, std::string_view name);

}  // namespace ringlet
