// Prompts, captions and sentences, one a line.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ringlet::service {

/// The lines of a text file that are not empty. Throws Error(not_found), Error(invalid_argument)
/// for a file without any, and as read_text_file.
std::vector<std::string> read_lines(const std::filesystem::path& path);

}  // namespace ringlet::service
