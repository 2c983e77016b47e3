// Folders that results go into.
#pragma once

#include <filesystem>
#include <string>

namespace ringlet {

/// Makes a folder and those above it; one that is there stays as it is. The only place that makes
/// folders. Throws
/// Error(io | no_space) with the hint.
void make_folder(const std::filesystem::path& folder, const std::string& hint = {});

}  // namespace ringlet
