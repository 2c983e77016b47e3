// Small text helpers for messages.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ringlet {

/// The candidate with the smallest edit distance (insertions, deletions, replacements, swaps of
/// neighbours; case ignored), or "" when none is close enough to be a likely typing error.
std::string nearest_name(std::string_view word, std::span<const std::string> candidates);

std::string human_bytes(std::uint64_t bytes);  ///< "1.6 GiB"
/// "512M", "8G", "1.5GiB", "1T": units of 1024; nothing for other texts, 0 and below among them.
std::optional<std::uint64_t> read_bytes(std::string_view text);

std::string human_count(std::int64_t count);  ///< "860 M", "797 k", "12"

/// The shortest text that reads as exactly this number again.
std::string exact_number(double value);

std::string short_number(double value);  ///< four significant digits, for reports: "0.9167"

/// The finite number that the whole text is, in decimal digits ("0.5", "-1e+05", a leading + is
/// allowed), whatever the locale; nothing for any other text, and for what is too large or too
/// small for a double.
std::optional<double> read_number(std::string_view text);

/// "a, b, c".
std::string join(std::span<const std::string> words, std::string_view separator = ", ");

/// True when the bytes are well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

/// Text from a file for a terminal: control characters and, unless kept, line breaks as \xNN.
std::string printable(std::string_view text, bool keep_line_breaks = false);

}  // namespace ringlet
