#include "ringlet/tokenizers/clip_text_split.h"

#include <algorithm>
#include <array>

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "ringlet/core/error.h"

namespace ringlet::tokenizers {
namespace {

using CodePoints = std::u32string;

CodePoints normalised(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(status);
  const icu::UnicodeString source = icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())));
  const icu::UnicodeString composed = nfc->normalize(source, status);
  if (U_FAILURE(status)) throw Error(ErrorCode::internal, "prompt", "Unicode normalisation failed");

  CodePoints out;
  for (std::int32_t i = 0; i < composed.length(); i = composed.moveIndex32(i, 1)) {
    const UChar32 c = composed.char32At(i);
    constexpr UChar32 kCapitalIWithDot = 0x130;  // the only letter whose lower case is two
    if (u_isUWhiteSpace(c)) {
      if (out.empty() || out.back() != U' ') out += U' ';
    } else if (c == kCapitalIWithDot) {
      out += U"i\u0307";
    } else {
      out += static_cast<char32_t>(u_tolower(c));
    }
  }
  return out;
}

bool is_letter(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0; }
bool is_number(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0; }

/// Length of the word that starts at the front of `rest`; 0 for white space.
std::size_t word_length(std::u32string_view rest) {
  using namespace std::literals;
  static constexpr std::array kSuffixes = {U"'s"sv, U"'t"sv,  U"'re"sv, U"'ve"sv,
                                           U"'m"sv, U"'ll"sv, U"'d"sv};
  for (const std::u32string_view suffix : kSuffixes)
    if (rest.starts_with(suffix)) return suffix.size();
  const auto run = [&](auto&& belongs) {
    return static_cast<std::size_t>(std::ranges::find_if_not(rest, belongs) - rest.begin());
  };
  if (is_letter(rest.front())) return run(is_letter);
  if (is_number(rest.front())) return 1;
  return run([](char32_t c) { return c != U' ' && !is_letter(c) && !is_number(c); });
}

}  // namespace

std::string utf8_of(std::int32_t code_point) {
  std::string out;
  icu::UnicodeString(static_cast<UChar32>(code_point)).toUTF8String(out);
  return out;
}

std::vector<std::string> split_for_clip(std::string_view text) {
  const CodePoints clean = normalised(text);
  std::vector<std::string> words;
  for (std::u32string_view rest = clean; !rest.empty();) {
    const std::size_t length = word_length(rest);
    if (length > 0) {
      std::string& word = words.emplace_back();
      for (const char32_t c : rest.substr(0, length)) word += utf8_of(static_cast<std::int32_t>(c));
    }
    rest.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return words;
}

}  // namespace ringlet::tokenizers
