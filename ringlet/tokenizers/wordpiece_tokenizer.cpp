#include "ringlet/tokenizers/wordpiece_tokenizer.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <map>

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/tokenizers/byte_pair.h"
#include "ringlet/tokenizers/clip_text_split.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

constexpr const char* kContinued = "##";
constexpr std::size_t kLongestWord = 100;  // longer ones are unknown

bool is_control(char32_t c) {
  if (c == U'\t' || c == U'\n' || c == U'\r') return false;
  const auto mask = U_GET_GC_MASK(static_cast<UChar32>(c));
  return (mask & U_GC_C_MASK) != 0;
}

bool is_punctuation(char32_t c) {
  const bool ascii_sign = (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
                          (c >= 123 && c <= 126);
  return ascii_sign || (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_P_MASK) != 0;
}

bool is_chinese(char32_t c) {
  constexpr std::pair<char32_t, char32_t> kBlocks[] = {
      {0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
      {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  return std::ranges::any_of(
      kBlocks, [c](const auto& block) { return c >= block.first && c <= block.second; });
}

/// What a code point becomes: lower case without accents, or itself. All come from its bytes.
std::vector<CodePoint> folded(const CodePoint& point) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* nfd = icu::Normalizer2::getNFDInstance(status);
  icu::UnicodeString text(static_cast<UChar32>(point.value));
  text = nfd->normalize(text, status);
  if (U_FAILURE(status)) throw Error(ErrorCode::internal, "text", "Unicode normalisation failed");
  text.toLower(icu::Locale::getRoot());
  std::vector<CodePoint> out;
  for (std::int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) {
    const UChar32 c = text.char32At(i);
    if (u_charType(c) != U_NON_SPACING_MARK)
      out.push_back({static_cast<char32_t>(c), point.begin, point.end});
  }
  return out;
}

using Word = std::vector<CodePoint>;

/// BERT's basic tokenizer: cleaned text, split at white space, punctuation and Chinese characters.
std::vector<Word> basic_words(std::string_view text, bool lower) {
  std::vector<Word> words;
  bool open = false;
  const auto add = [&](const CodePoint& point, bool alone) {
    if (alone || !open) words.emplace_back();
    words.back().push_back(point);
    open = !alone;
  };
  for (const CodePoint& raw : code_points(text)) {
    if (raw.value == 0 || raw.value == 0xFFFD || is_control(raw.value)) continue;
    if (is_space(raw.value)) {
      open = false;
      continue;
    }
    const Word points = lower ? folded(raw) : Word{raw};
    for (const CodePoint& point : points)
      add(point, is_punctuation(point.value) || is_chinese(point.value));
  }
  return words;
}

std::string text_of(const Word& word, std::size_t begin, std::size_t end) {
  std::string text;
  for (std::size_t i = begin; i < end; ++i)
    text += utf8_of(static_cast<std::int32_t>(word[i].value));
  return text;
}

std::vector<std::string> read_vocabulary(const fs::path& folder, std::string& where) {
  std::vector<std::string> tokens;
  if (fs::exists(folder / "vocab.txt")) {
    where = (folder / "vocab.txt").string();
    std::ifstream file(folder / "vocab.txt", std::ios::binary);
    for (std::string line; std::getline(file, line);) {
      if (line.ends_with('\r')) line.pop_back();
      tokens.push_back(line);
    }
    return tokens;
  }
  const fs::path path = folder / "tokenizer.json";
  where = path.string();
  if (!fs::exists(path))
    throw Error(ErrorCode::not_found, folder.string(), "no WordPiece tokenizer here",
                "BERT's folders hold vocab.txt or tokenizer.json");
  const Json model = json_require<Json>(read_json_file(path), "model", where);
  if (json_value<std::string>(model, "type", "", where) != "WordPiece")
    throw Error(ErrorCode::unsupported, where, "is not a WordPiece tokenizer");
  const Json table = json_require<Json>(model, "vocab", where);
  tokens.resize(table.size());
  for (const auto& [token, id] : table.items()) {
    if (!id.is_number_unsigned() || id.get<std::size_t>() >= tokens.size())
      throw Error(ErrorCode::bad_format, where, "the id of \"" + token + "\" is not a valid index");
    tokens[id.get<std::size_t>()] = token;
  }
  return tokens;
}

}  // namespace

WordPieceTokenizer WordPieceTokenizer::open(const fs::path& folder) {
  WordPieceTokenizer tokenizer;
  const std::vector<std::string> tokens = read_vocabulary(folder, tokenizer.where_);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokenizer.ids_.emplace(tokens[i], static_cast<std::int64_t>(i));
  if (const fs::path config = folder / "tokenizer_config.json"; fs::exists(config))
    tokenizer.lower_ = json_value(read_json_file(config), "do_lower_case", true, config.string());
  tokenizer.begin_ = tokenizer.id_of("[CLS]");
  tokenizer.end_ = tokenizer.id_of("[SEP]");
  tokenizer.pad_ = tokenizer.id_of("[PAD]");
  tokenizer.unknown_ = tokenizer.id_of("[UNK]");
  return tokenizer;
}

std::int64_t WordPieceTokenizer::id_of(const std::string& token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end())
    throw Error(ErrorCode::bad_format, where_, "the vocabulary lacks \"" + token + "\"");
  return found->second;
}

void WordPieceTokenizer::append_word(const Word& word, std::int64_t type, EncodedText& out) const {
  EncodedText pieces;
  for (std::size_t begin = 0; begin < word.size();) {
    std::size_t end = word.size() > kLongestWord ? begin : word.size();
    auto found = ids_.end();
    for (; end > begin; --end) {
      found = ids_.find((begin > 0 ? kContinued : "") + text_of(word, begin, end));
      if (found != ids_.end()) break;
    }
    if (end == begin) {  // no piece fits: the whole word is unknown
      pieces = {{unknown_}, {type}, {{word.front().begin, word.back().end}}};
      break;
    }
    pieces.ids.push_back(found->second);
    pieces.types.push_back(type);
    pieces.parts.push_back({word[begin].begin, word[end - 1].end});
    begin = end;
  }
  out.ids.insert(out.ids.end(), pieces.ids.begin(), pieces.ids.end());
  out.types.insert(out.types.end(), pieces.types.begin(), pieces.types.end());
  out.parts.insert(out.parts.end(), pieces.parts.begin(), pieces.parts.end());
}

void WordPieceTokenizer::append(std::string_view text, std::int64_t type, EncodedText& out) const {
  for (const Word& word : basic_words(text, lower_)) append_word(word, type, out);
}

namespace {

void cut(EncodedText& text, std::size_t length) {
  if (text.ids.size() <= length) return;
  text.ids.resize(length);
  text.types.resize(length);
  text.parts.resize(length);
}

void add_special(EncodedText& text, std::int64_t id, std::int64_t type) {
  text.ids.push_back(id);
  text.types.push_back(type);
  text.parts.emplace_back();
}

}  // namespace

EncodedText WordPieceTokenizer::encode(std::string_view text, std::int64_t length) const {
  EncodedText out;
  add_special(out, begin_, 0);
  append(text, 0, out);
  cut(out, static_cast<std::size_t>(std::max<std::int64_t>(length, 2)) - 1);
  add_special(out, end_, 0);
  return out;
}

EncodedText WordPieceTokenizer::encode(std::string_view first, std::string_view second,
                                       std::int64_t length) const {
  EncodedText out;
  add_special(out, begin_, 0);
  append(first, 0, out);
  add_special(out, end_, 0);
  if (static_cast<std::int64_t>(out.ids.size()) + 2 > length)
    throw Error(ErrorCode::invalid_argument, "text",
                "the first of two texts has " + std::to_string(out.ids.size()) +
                    " tokens, which leaves no room for the second",
                "give a larger `length`");
  out.second = out.ids.size();
  append(second, 1, out);
  cut(out, static_cast<std::size_t>(length) - 1);
  add_special(out, end_, 1);
  return out;
}

std::vector<std::int64_t> WordPieceTokenizer::ids(std::string_view text) const {
  return encode(text, std::numeric_limits<std::int64_t>::max()).ids;
}

std::string WordPieceTokenizer::token(std::int64_t id) const {
  const auto found = std::ranges::find(ids_, id, [](const auto& entry) { return entry.second; });
  return found == ids_.end() ? "" : found->first;
}

std::vector<std::string> learn_wordpieces(const std::vector<std::string>& texts,
                                          std::size_t vocabulary) {
  std::map<std::string, std::int64_t> frequency;
  for (const std::string& text : texts)
    for (const Word& word : basic_words(text, /*lower=*/true))
      if (word.size() <= kLongestWord) ++frequency[text_of(word, 0, word.size())];
  std::vector<std::string> tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  // Pieces by number: a continued one is another symbol than the same letters at the front.
  std::vector<std::string> pieces;
  std::map<std::string, std::int64_t> numbers;
  const auto number_of = [&](const std::string& piece) {
    const auto [found, is_new] = numbers.emplace(piece, static_cast<std::int64_t>(pieces.size()));
    if (is_new) pieces.push_back(piece);
    return found->second;
  };
  std::vector<CountedWord> words;
  for (const auto& [text, count] : frequency) {
    CountedWord& word = words.emplace_back(CountedWord{{}, count});
    for (const CodePoint& point : code_points(text)) {
      const std::string letter = text.substr(point.begin, point.end - point.begin);
      word.symbols.push_back(number_of((word.symbols.empty() ? "" : kContinued) + letter));
    }
  }
  const std::size_t specials = tokens.size(), letters = pieces.size();
  if (vocabulary > specials + letters)
    learn_merges(std::move(words), vocabulary - specials - letters,
                 [&](std::int64_t left, std::int64_t right) {
                   const std::string tail = pieces[static_cast<std::size_t>(right)];
                   return number_of(pieces[static_cast<std::size_t>(left)] +
                                    tail.substr(std::string(kContinued).size()));
                 });
  tokens.insert(tokens.end(), pieces.begin(), pieces.end());
  return tokens;
}

}  // namespace ringlet::tokenizers
