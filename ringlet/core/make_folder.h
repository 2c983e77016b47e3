// Folders that results go into.
#pragma once

#include <filesystem>

namespace ringlet {

/// Makes a folder and those above it; one that is there stays as it is. Throws Error(io).
void make_folder(const std::filesystem::path& folder);

}  // namespace ringlet
