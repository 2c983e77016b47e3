#include "ringlet/core/decode_text.h"

#include <cstdint>
#include <string_view>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet {
namespace {

using namespace std::literals;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::bad_format, where, what, "save the file as UTF-8 text");
}

void append_utf8(char32_t c, std::string& out) {
  const auto tail = [&](int shift) {
    out += static_cast<char>(0x80 | (static_cast<std::uint32_t>(c) >> shift & 0x3F));
  };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

/// `high` is the place of the more significant byte in a pair.
std::string from_utf16(std::string_view bytes, std::size_t high, const std::string& where) {
  if (bytes.size() % 2 != 0) refuse(where, "the text is UTF-16 that ends within a character");
  const auto unit = [&](std::size_t at) {
    return static_cast<char32_t>(static_cast<unsigned char>(bytes[at + high]) << 8 |
                                 static_cast<unsigned char>(bytes[at + 1 - high]));
  };
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 2) {
    char32_t c = unit(at);
    if (c >= 0xD800 && c < 0xE000) {
      const char32_t low = c < 0xDC00 && at + 3 < bytes.size() ? unit(at + 2) : 0;
      if (low < 0xDC00 || low >= 0xE000) refuse(where, "the text is damaged UTF-16");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      at += 2;
    }
    append_utf8(c, out);
  }
  return out;
}

}  // namespace

std::string decode_text(std::string bytes, const std::string& where) {
  constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";
  if (bytes.starts_with("\xFF\xFE\0\0"sv) || bytes.starts_with("\0\0\xFE\xFF"sv))
    refuse(where, "the text is UTF-32");
  const bool little = bytes.starts_with("\xFF\xFE");
  if (little || bytes.starts_with("\xFE\xFF"))
    return from_utf16(std::string_view(bytes).substr(2), little ? 1 : 0, where);
  if (bytes.starts_with(kUtf8Mark)) bytes.erase(0, kUtf8Mark.size());
  if (bytes.find('\0') != std::string::npos)
    refuse(where, "holds zero bytes: this is UTF-16 without a byte order mark, or not text");
  if (!is_utf8(bytes))
    refuse(where, "the text is not valid UTF-8; it may be Latin-1 or Windows-1252");
  return bytes;
}

}  // namespace ringlet
