#include "ringlet/tokenizers/clip_tokenizer.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/tokenizers/byte_pair.h"
#include "ringlet/tokenizers/clip_text_split.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEndOfWord = "</w>";

/// Special tokens by role. A map file without added_tokens_decoder in the configuration overrides
/// it (folders written by transformers 4.33 and older).
struct SpecialTokens {
  std::string begin = "<|startoftext|>";
  std::string end = "<|endoftext|>";
  std::string unknown = "<|endoftext|>";
  std::string pad = "<|endoftext|>";
  std::int64_t max_length = 77;
};

std::string token_text(const Json& json, const char* key, const std::string& fallback,
                       const std::string& where) {
  const auto found = json.find(key);
  if (found != json.end() && found->is_object())
    return json_require<std::string>(*found, "content", where);
  return json_value<std::string>(json, key, fallback, where);
}

void read_special_tokens(const fs::path& path, SpecialTokens& tokens) {
  const std::string where = path.string();
  const Json json = read_json_file(path);
  if (!json.is_object()) throw Error(ErrorCode::bad_format, where, "a JSON object is expected");
  tokens.begin = token_text(json, "bos_token", tokens.begin, where);
  tokens.end = token_text(json, "eos_token", tokens.end, where);
  tokens.unknown = token_text(json, "unk_token", tokens.unknown, where);
  tokens.pad = token_text(json, "pad_token", tokens.pad, where);
  const double length =
      json_value(json, "model_max_length", static_cast<double>(tokens.max_length), where);
  // transformers writes 1e30 for "no limit".
  tokens.max_length = static_cast<std::int64_t>(std::clamp(length, 2.0, 1e6));
}

SpecialTokens special_tokens(const fs::path& folder) {
  SpecialTokens tokens;
  const fs::path config = folder / "tokenizer_config.json";
  const fs::path map = folder / "special_tokens_map.json";
  bool complete = false;
  if (fs::exists(config)) {
    read_special_tokens(config, tokens);
    complete = read_json_file(config).contains("added_tokens_decoder");
  }
  if (fs::exists(map) && !complete) {
    const std::int64_t length = tokens.max_length;
    read_special_tokens(map, tokens);
    tokens.max_length = length;
  }
  return tokens;
}

}  // namespace

namespace {

char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equal_but_for_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, ascii_lower, ascii_lower);
}

/// A text that is no word for the byte pairs: a special token, or a word of with_word.
struct Special {
  std::string text;
  std::vector<std::int64_t> ids;
  bool own_word = false;  ///< of with_word

  bool begins(std::string_view rest) const {
    const std::string_view part = rest.substr(0, text.size());
    return own_word ? equal_but_for_case(part, text) : part == text;
  }
};

}  // namespace

struct ClipTokenizer::Tables : BytePairTables {
  // Found in the raw text; the longest wins where two begin at the same place.
  std::vector<Special> specials;
  std::int64_t begin, end, pad, unknown;
  std::int64_t max_length;

  void sort_specials() {
    std::ranges::stable_sort(specials, std::greater<>{},
                             [](const Special& entry) { return entry.text.size(); });
  }

  /// The first special at or after `from`: its place, and which; none = the end.
  std::pair<std::size_t, const Special*> next_special(std::string_view text,
                                                      std::size_t from) const {
    for (std::size_t i = from; i < text.size(); ++i)
      for (const Special& special : specials)
        if (special.begins(text.substr(i))) return {i, &special};
    return {text.size(), nullptr};
  }
  void append_word(std::string_view word, std::vector<std::int64_t>& out) const;
  void append_segment(std::string_view text, std::vector<std::int64_t>& out) const;
};

void ClipTokenizer::Tables::append_word(std::string_view word,
                                        std::vector<std::int64_t>& out) const {
  std::vector<std::int64_t> symbols;
  for (std::size_t i = 0; i < word.size(); ++i) {
    std::string symbol = byte_symbols()[static_cast<unsigned char>(word[i])];
    if (i + 1 == word.size()) symbol += kEndOfWord;
    const auto found = ids.find(symbol);
    symbols.push_back(found == ids.end() ? -1 : found->second);
  }
  for (const std::int64_t symbol : merged(std::move(symbols)))
    out.push_back(symbol < 0 ? unknown : symbol);
}

void ClipTokenizer::Tables::append_segment(std::string_view text,
                                           std::vector<std::int64_t>& out) const {
  for (const std::string& word : split_for_clip(text)) append_word(word, out);
}

ClipTokenizer ClipTokenizer::open(const fs::path& folder, const std::string& pad_token) {
  if (!fs::exists(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the tokenizer folder does not exist");
  auto tables = std::make_shared<Tables>();
  tables->read(folder, kEndOfWord, "CLIP");
  SpecialTokens special = special_tokens(folder);
  if (!pad_token.empty()) special.pad = pad_token;
  for (const std::string& text : {special.begin, special.end, special.pad, special.unknown})
    if (text.empty())
      throw Error(ErrorCode::bad_format, folder.string(), "a special token is the empty text");
  tables->begin = tables->id_of(special.begin);
  tables->end = tables->id_of(special.end);
  tables->pad = tables->id_of(special.pad);
  tables->unknown = tables->id_of(special.unknown);
  tables->max_length = special.max_length;
  for (const std::string& text : {special.begin, special.end, special.pad, special.unknown})
    tables->specials.push_back({text, std::vector{tables->id_of(text)}});
  tables->sort_specials();
  return ClipTokenizer(std::move(tables));
}

std::shared_ptr<const Tokenizer> ClipTokenizer::with_word(
    const std::string& word, const std::vector<std::int64_t>& ids) const {
  auto tables = std::make_shared<Tables>(*tables_);
  const bool taken = std::ranges::any_of(
      tables->specials, [&](const Special& entry) { return equal_but_for_case(entry.text, word); });
  if (word.empty() || ids.empty() || taken)
    throw Error(
        ErrorCode::invalid_argument, "\"" + word + "\"",
        taken ? "is already in the tokenizer's vocabulary" : "cannot be the word of an embedding",
        "choose another word");
  for (std::size_t i = 0; i < ids.size(); ++i)
    tables->tokens[ids[i]] = i == 0 ? word : word + "_" + std::to_string(i);
  tables->specials.push_back({word, ids, /*own_word=*/true});
  tables->sort_specials();
  return std::shared_ptr<const Tokenizer>(new ClipTokenizer(std::move(tables)));
}

std::vector<std::int64_t> ClipTokenizer::ids(std::string_view text) const {
  if (!is_utf8(text))
    throw Error(ErrorCode::invalid_argument, "prompt", "the text is not valid UTF-8",
                "save the file or set the terminal to UTF-8");
  std::vector<std::int64_t> found{tables_->begin};
  for (std::size_t segment = 0; segment <= text.size();) {
    const auto [place, special] = tables_->next_special(text, segment);
    tables_->append_segment(text.substr(segment, place - segment), found);
    if (special == nullptr) break;
    found.insert(found.end(), special->ids.begin(), special->ids.end());
    segment = place + special->text.size();
  }
  found.push_back(tables_->end);
  return found;
}

std::vector<WordPlace> ClipTokenizer::own_words(std::string_view text) const {
  std::vector<WordPlace> places;
  for (std::size_t from = 0;;) {
    const auto [place, special] = tables_->next_special(text, from);
    if (special == nullptr) return places;
    if (special->own_word) places.push_back({special->text, place});
    from = place + special->text.size();
  }
}

EncodedPrompt ClipTokenizer::encode_prompt(std::string_view text, std::int64_t length) const {
  EncodedPrompt out;
  out.ids = ids(text);
  const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(length, 2));
  if (out.ids.size() > wanted) {
    out.cut = decode(std::span(out.ids).subspan(wanted - 1));
    out.ids.resize(wanted);
    out.ids.back() = tables_->end;
  }
  out.used = static_cast<std::int64_t>(out.ids.size());
  out.ids.resize(wanted, tables_->pad);
  return out;
}

std::string ClipTokenizer::decode(std::span<const std::int64_t> ids) const {
  std::string out;
  for (const std::int64_t id : ids) {
    if (id == tables_->begin || id == tables_->end) continue;
    std::string symbols = token(id);
    const bool word_ends = symbols.ends_with(kEndOfWord);
    if (word_ends) symbols.resize(symbols.size() - kEndOfWord.size());
    out += symbol_bytes(symbols);
    if (word_ends) out += ' ';
  }
  while (out.ends_with(' ')) out.pop_back();
  return out;
}

std::string ClipTokenizer::token(std::int64_t id) const {
  const auto found = tables_->tokens.find(id);
  return found == tables_->tokens.end() ? "" : found->second;
}

std::int64_t ClipTokenizer::begin_id() const { return tables_->begin; }
std::int64_t ClipTokenizer::end_id() const { return tables_->end; }
std::int64_t ClipTokenizer::pad_id() const { return tables_->pad; }
std::int64_t ClipTokenizer::max_length() const { return tables_->max_length; }
std::int64_t ClipTokenizer::vocabulary_size() const { return tables_->tokens.rbegin()->first + 1; }

}  // namespace ringlet::tokenizers
