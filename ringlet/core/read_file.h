// A whole file at once, and text files that people write.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <limits>
#include <string>
#include <vector>

namespace ringlet {

/// The bytes of a regular file. Throws Error(not_found | io), and Error(unsupported) for more than
/// `most` bytes.
std::string read_file(const std::filesystem::path& path,
                      std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

/// A text without the byte order mark that some editors begin UTF-8 files with.
std::string without_byte_order_mark(std::string text);

/// Moves past a byte order mark at the start of a stream that can go back.
void skip_byte_order_mark(std::istream& stream);

/// A text file for people to write, as UTF-8: see decode_text. Throws as it and as read_file.
std::string read_text_file(const std::filesystem::path& path,
                           std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

/// The lines of such a file, empty ones too, without the carriage returns of Windows.
std::vector<std::string> read_text_lines(const std::filesystem::path& path);

}  // namespace ringlet
