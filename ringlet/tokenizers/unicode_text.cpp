#include "ringlet/tokenizers/unicode_text.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::tokenizers {

std::vector<CodePoint> code_points(std::string_view text) {
  if (!is_utf8(text))
    throw Error(ErrorCode::invalid_argument, "text", "is not valid UTF-8",
                "save the file as UTF-8");
  std::vector<CodePoint> points;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    UChar32 value = 0;
    U8_NEXT(text.data(), at, text.size(), value);
    points.push_back({static_cast<char32_t>(value), begin, at});
  }
  return points;
}

bool is_letter(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0; }
bool is_number(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0; }
bool is_space(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0; }

}  // namespace ringlet::tokenizers
