// Texts as code points, for tokenizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ringlet::tokenizers {

/// A code point and the bytes of the text that it comes from.
struct CodePoint {
  char32_t value = 0;
  std::size_t begin = 0, end = 0;
};

/// Throws Error(invalid_argument) when the text is not UTF-8.
std::vector<CodePoint> code_points(std::string_view text);

/// Part of a text, in bytes.
struct TextPart {
  std::size_t begin = 0, end = 0;
  bool operator==(const TextPart&) const = default;
};

bool is_letter(char32_t c);
bool is_number(char32_t c);
bool is_space(char32_t c);

}  // namespace ringlet::tokenizers
