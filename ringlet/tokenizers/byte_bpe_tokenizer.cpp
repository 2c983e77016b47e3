#include "ringlet/tokenizers/byte_bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

std::int64_t id_or_none(const BytePairTables& tables, const char* token) {
  const auto found = tables.ids.find(token);
  return found == tables.ids.end() ? -1 : found->second;
}

void add_special(EncodedText& text, std::int64_t id) {
  text.ids.push_back(id);
  text.types.push_back(0);
  text.parts.emplace_back();
}

void append(EncodedText& text, const EncodedText& more, std::size_t most) {
  const auto count = static_cast<std::ptrdiff_t>(std::min(more.ids.size(), most));
  text.ids.insert(text.ids.end(), more.ids.begin(), more.ids.begin() + count);
  text.types.insert(text.types.end(), more.types.begin(), more.types.begin() + count);
  text.parts.insert(text.parts.end(), more.parts.begin(), more.parts.begin() + count);
}

enum class Sign { letter, number, space, other };

Sign sign_of(char32_t c) {
  if (is_letter(c)) return Sign::letter;
  if (is_number(c)) return Sign::number;
  return is_space(c) ? Sign::space : Sign::other;
}

/// How many points the part that begins at `at` has.
std::size_t part_length(const std::vector<CodePoint>& points, std::size_t at) {
  static constexpr std::array<std::u32string_view, 7> kEndings = {U"s", U"t",  U"re", U"ve",
                                                                  U"m", U"ll", U"d"};
  const auto starts_with = [&](std::u32string_view letters) {
    for (std::size_t i = 0; i < letters.size(); ++i)
      if (at + 1 + i >= points.size() || points[at + 1 + i].value != letters[i]) return false;
    return true;
  };
  if (points[at].value == U'\'')
    for (const std::u32string_view ending : kEndings)
      if (starts_with(ending)) return 1 + ending.size();
  const auto run = [&](std::size_t from) {
    const Sign sign = sign_of(points[from].value);
    std::size_t end = from + 1;
    while (end < points.size() && sign_of(points[end].value) == sign) ++end;
    return end - from;
  };
  if (sign_of(points[at].value) != Sign::space) return run(at);
  const std::size_t spaces = run(at);
  const bool is_last = at + spaces == points.size();
  // One blank goes with what follows it; other white space before it stays by itself.
  if (spaces == 1 && !is_last && points[at].value == U' ') return 1 + run(at + 1);
  return is_last || spaces == 1 ? spaces : spaces - 1;
}

}  // namespace

std::vector<TextPart> split_for_gpt2(std::string_view text) {
  const std::vector<CodePoint> points = code_points(text);
  std::vector<TextPart> parts;
  for (std::size_t at = 0; at < points.size();) {
    const std::size_t length = part_length(points, at);
    parts.push_back({points[at].begin, points[at + length - 1].end});
    at += length;
  }
  return parts;
}

ByteBpeTokenizer ByteBpeTokenizer::open(const fs::path& folder) {
  auto tables = std::make_shared<BytePairTables>();
  tables->read(folder, "", "byte-level BPE");
  for (const std::string& symbol : byte_symbols()) tables->id_of(symbol);  // any text has tokens
  ByteBpeTokenizer tokenizer;
  tokenizer.begin_ = id_or_none(*tables, "<s>");
  tokenizer.end_ = id_or_none(*tables, "</s>");
  if (tokenizer.end_ < 0) tokenizer.end_ = id_or_none(*tables, "<|endoftext|>");
  tokenizer.pad_ = id_or_none(*tables, "<pad>");
  tokenizer.tables_ = std::move(tables);
  return tokenizer;
}

EncodedText ByteBpeTokenizer::tokenize(std::string_view text) const {
  EncodedText out;
  for (const TextPart& part : split_for_gpt2(text)) {
    std::vector<std::int64_t> symbols;
    for (std::size_t i = part.begin; i < part.end; ++i)
      symbols.push_back(tables_->ids.at(byte_symbols()[static_cast<unsigned char>(text[i])]));
    std::size_t at = part.begin;
    for (const std::int64_t id : tables_->merged(std::move(symbols))) {
      const std::size_t bytes = symbol_bytes(tables_->tokens.at(id)).size();
      out.ids.push_back(id);
      out.types.push_back(0);
      out.parts.push_back({at, at + bytes});
      at += bytes;
    }
  }
  return out;
}

EncodedText ByteBpeTokenizer::encode(std::string_view text, std::int64_t length) const {
  if (begin_ < 0 || pad_ < 0)
    throw Error(ErrorCode::unsupported, tables_->where, "the vocabulary lacks <s>, </s> or <pad>",
                "the encoder needs RoBERTa's tokenizer");
  EncodedText out;
  add_special(out, begin_);
  append(out, tokenize(text), static_cast<std::size_t>(std::max<std::int64_t>(length, 2)) - 2);
  add_special(out, end_);
  return out;
}

EncodedText ByteBpeTokenizer::encode(std::string_view first, std::string_view second,
                                     std::int64_t length) const {
  EncodedText out = encode(first, static_cast<std::int64_t>(first.size()) + 2);
  const auto used = static_cast<std::int64_t>(out.ids.size()) + 2;
  if (used + 1 > length)
    throw Error(ErrorCode::invalid_argument, "text",
                "the first of two texts has " + std::to_string(used) +
                    " tokens, which leaves no room for the second",
                "give a larger `length`");
  add_special(out, end_);
  out.second = out.ids.size();
  append(out, tokenize(second), static_cast<std::size_t>(length - used));
  add_special(out, end_);
  return out;
}

std::vector<std::int64_t> ByteBpeTokenizer::ids(std::string_view text) const {
  if (begin_ < 0 || pad_ < 0) return tokenize(text).ids;
  return encode(text, std::numeric_limits<std::int64_t>::max()).ids;
}

std::string ByteBpeTokenizer::token(std::int64_t id) const {
  const auto found = tables_->tokens.find(id);
  return found == tables_->tokens.end() ? "" : found->second;
}

std::string ByteBpeTokenizer::decode(std::span<const std::int64_t> ids) const {
  std::string text;
  for (const std::int64_t id : ids) {
    const auto token = tables_->tokens.find(id);
    if (id == begin_ || id == end_ || id == pad_ || token == tables_->tokens.end()) continue;
    text += symbol_bytes(token->second);
  }
  return text;
}

LearntBytePairs learn_byte_pairs(const std::vector<std::string>& texts, std::size_t vocabulary,
                                 const std::vector<std::string>& specials) {
  std::map<std::string, std::int64_t> frequency;
  for (const std::string& text : texts)
    for (const TextPart& part : split_for_gpt2(text))
      ++frequency[text.substr(part.begin, part.end - part.begin)];
  std::vector<std::string> tokens = byte_symbols();
  std::map<std::string, std::int64_t> numbers;
  for (std::size_t i = 0; i < tokens.size(); ++i) numbers[tokens[i]] = static_cast<std::int64_t>(i);
  std::vector<CountedWord> words;
  for (const auto& [text, count] : frequency) {
    CountedWord& word = words.emplace_back(CountedWord{{}, count});
    for (const char byte : text)
      word.symbols.push_back(static_cast<std::int64_t>(static_cast<unsigned char>(byte)));
  }
  LearntBytePairs learnt;
  learnt.merges = "#version: 0.2\n";
  const std::size_t start = specials.size() + tokens.size();
  if (vocabulary > start)
    learn_merges(std::move(words), vocabulary - start, [&](std::int64_t left, std::int64_t right) {
      const std::string a = tokens[static_cast<std::size_t>(left)],
                        b = tokens[static_cast<std::size_t>(right)];
      learnt.merges += a + " " + b + "\n";
      const auto [found, is_new] = numbers.emplace(a + b, static_cast<std::int64_t>(tokens.size()));
      if (is_new) tokens.push_back(a + b);
      return found->second;
    });
  Json table = Json::object();
  for (const std::string& token : specials) table[token] = table.size();
  for (const std::string& token : tokens) table[token] = table.size();
  learnt.vocabulary = table.dump() + "\n";
  return learnt;
}

}  // namespace ringlet::tokenizers
