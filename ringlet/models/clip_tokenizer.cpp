#include "ringlet/models/clip_tokenizer.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <queue>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/models/clip_text_split.h"

namespace ringlet::models {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEndOfWord = "</w>";

/// The printable character that stands for a byte in the vocabulary (GPT-2's table).
const std::vector<std::string>& byte_symbols() {
  static const std::vector<std::string> table = [] {
    std::vector<std::string> symbols(256);
    std::int32_t next = 256;
    for (std::int32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
                             (byte >= 0xAE && byte <= 0xFF);
      symbols[static_cast<std::size_t>(byte)] = utf8_of(printable ? byte : next++);
    }
    return symbols;
  }();
  return table;
}

const std::unordered_map<std::string, char>& symbol_bytes() {
  static const std::unordered_map<std::string, char> table = [] {
    std::unordered_map<std::string, char> bytes;
    for (std::size_t i = 0; i < 256; ++i) bytes[byte_symbols()[i]] = static_cast<char>(i);
    return bytes;
  }();
  return table;
}

struct Merge {
  std::int64_t rank;
  std::int64_t result;
};

struct PairHash {
  std::size_t operator()(const std::pair<std::int64_t, std::int64_t>& p) const {
    return static_cast<std::size_t>(p.first * 1000003 + p.second);
  }
};

/// What the files say, before it is checked.
struct Source {
  Json vocabulary;
  std::vector<std::string> merges;
  std::string where;
};

std::vector<std::string> read_merges(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::not_found, path.string(), "the file cannot be opened");
  std::vector<std::string> merges;
  std::string line;
  while (std::getline(file, line)) {
    if (line.ends_with('\r')) line.pop_back();
    const bool header = merges.empty() && line.starts_with("#version");
    if (!line.empty() && !header) merges.push_back(line);
  }
  if (file.bad()) throw Error(ErrorCode::io, path.string(), "the file cannot be read");
  return merges;
}

Source read_tokenizer_json(const fs::path& path) {
  const std::string where = path.string();
  const Json json = read_json_file(path);
  const Json model = json_require<Json>(json, "model", where);
  if (json_value<std::string>(model, "type", "BPE", where) != "BPE" ||
      json_value<std::string>(model, "end_of_word_suffix", "", where) != kEndOfWord)
    throw Error(ErrorCode::unsupported, where, "this is not a CLIP tokenizer");
  Source source{json_require<Json>(model, "vocab", where), {}, where};
  for (const Json& merge : json_require<Json>(model, "merges", where)) {
    if (merge.is_string()) {
      source.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      source.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    } else {
      throw Error(ErrorCode::bad_format, where, "a merge is neither a text nor a pair");
    }
  }
  return source;
}

Source read_source(const fs::path& folder) {
  if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt"))
    return {read_json_file(folder / "vocab.json"), read_merges(folder / "merges.txt"),
            (folder / "vocab.json").string()};
  if (fs::exists(folder / "tokenizer.json")) return read_tokenizer_json(folder / "tokenizer.json");
  throw Error(ErrorCode::not_found, folder.string(), "no CLIP tokenizer is there",
              "a tokenizer folder holds vocab.json and merges.txt, or tokenizer.json");
}

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

struct ClipTokenizer::Tables {
  std::unordered_map<std::string, std::int64_t> ids;
  std::map<std::int64_t, std::string> tokens;
  std::unordered_map<std::pair<std::int64_t, std::int64_t>, Merge, PairHash> merges;
  // Found in the raw text; the longest wins where two begin at the same place.
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> specials;
  std::int64_t begin, end, pad, unknown;
  std::int64_t max_length;
  std::string where;

  std::int64_t id_of(const std::string& token) const {
    const auto found = ids.find(token);
    if (found == ids.end())
      throw Error(ErrorCode::bad_format, where, "the vocabulary lacks \"" + token + "\"");
    return found->second;
  }
  void sort_specials() {
    std::ranges::stable_sort(specials, std::greater<>{},
                             [](const auto& entry) { return entry.first.size(); });
  }
  void read_vocabulary(const Source& source);
  void append_word(std::string_view word, std::vector<std::int64_t>& out) const;
  void append_segment(std::string_view text, std::vector<std::int64_t>& out) const;
};

void ClipTokenizer::Tables::read_vocabulary(const Source& source) {
  where = source.where;
  if (!source.vocabulary.is_object())
    throw Error(ErrorCode::bad_format, where, "the vocabulary is not a JSON object");
  for (const auto& [token, id] : source.vocabulary.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > 1 << 24)
      throw Error(ErrorCode::bad_format, where, "the id of \"" + token + "\" is no index");
    if (!tokens.emplace(id.get<std::int64_t>(), token).second)
      throw Error(ErrorCode::bad_format, where, "two tokens have the id " + id.dump());
    ids[token] = id.get<std::int64_t>();
  }
  std::int64_t rank = 0;
  for (const std::string& line : source.merges) {
    const std::size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
      throw Error(ErrorCode::bad_format, where,
                  "merge " + std::to_string(rank + 1) + " is not two tokens: \"" + line + "\"");
    const std::string left = line.substr(0, space);
    const std::string right = line.substr(space + 1);
    merges.try_emplace({id_of(left), id_of(right)}, Merge{rank, id_of(left + right)});
    ++rank;
  }
}

/// Merges the pair of lowest rank first, the leftmost of equals, in O(n log n).
void ClipTokenizer::Tables::append_word(std::string_view word,
                                        std::vector<std::int64_t>& out) const {
  std::vector<std::int64_t> symbols;
  for (std::size_t i = 0; i < word.size(); ++i) {
    std::string symbol = byte_symbols()[static_cast<unsigned char>(word[i])];
    if (i + 1 == word.size()) symbol += kEndOfWord;
    const auto found = ids.find(symbol);
    symbols.push_back(found == ids.end() ? -1 : found->second);  // -1: never merged
  }
  const auto count = static_cast<std::int64_t>(symbols.size());
  std::vector<std::int64_t> next(symbols.size()), previous(symbols.size());
  for (std::int64_t i = 0; i < count; ++i) {
    next[static_cast<std::size_t>(i)] = i + 1;
    previous[static_cast<std::size_t>(i)] = i - 1;
  }
  using Candidate = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [](auto& list, std::int64_t i) -> auto& {
    return list[static_cast<std::size_t>(i)];
  };
  const auto offer = [&](std::int64_t left) {
    if (left < 0 || at(next, left) >= count) return;
    const auto found = merges.find({at(symbols, left), at(symbols, at(next, left))});
    if (found != merges.end())
      queue.emplace(found->second.rank, left, at(symbols, left), at(symbols, at(next, left)));
  };
  for (std::int64_t i = 0; i + 1 < count; ++i) offer(i);
  constexpr std::int64_t kGone = -2;
  while (!queue.empty()) {
    const auto [rank, left, left_id, right_id] = queue.top();
    queue.pop();
    const std::int64_t right = at(next, left);
    if (at(symbols, left) != left_id || right >= count || at(symbols, right) != right_id) continue;
    at(symbols, left) = merges.at({left_id, right_id}).result;
    at(symbols, right) = kGone;
    at(next, left) = at(next, right);
    if (at(next, left) < count) at(previous, at(next, left)) = left;
    offer(at(previous, left));
    offer(left);
  }
  for (const std::int64_t symbol : symbols)
    if (symbol != kGone) out.push_back(symbol < 0 ? unknown : symbol);
}

void ClipTokenizer::Tables::append_segment(std::string_view text,
                                           std::vector<std::int64_t>& out) const {
  for (const std::string& word : split_for_clip(text)) append_word(word, out);
}

ClipTokenizer ClipTokenizer::open(const fs::path& folder, const std::string& pad_token) {
  if (!fs::exists(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the tokenizer folder does not exist");
  auto tables = std::make_shared<Tables>();
  tables->read_vocabulary(read_source(folder));
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
    tables->specials.emplace_back(text, std::vector{tables->id_of(text)});
  tables->sort_specials();
  return ClipTokenizer(std::move(tables));
}

ClipTokenizer ClipTokenizer::with_word(const std::string& word,
                                       const std::vector<std::int64_t>& ids) const {
  auto tables = std::make_shared<Tables>(*tables_);
  const bool taken =
      std::ranges::any_of(tables->specials, [&](const auto& entry) { return entry.first == word; });
  if (word.empty() || ids.empty() || taken)
    throw Error(ErrorCode::invalid_argument, "\"" + word + "\"",
                taken ? "is a word of the tokenizer already" : "is no word for an embedding",
                "choose another word");
  for (std::size_t i = 0; i < ids.size(); ++i)
    tables->tokens[ids[i]] = i == 0 ? word : word + "_" + std::to_string(i);
  tables->specials.emplace_back(word, ids);
  tables->sort_specials();
  return ClipTokenizer(std::move(tables));
}

std::vector<std::int64_t> ClipTokenizer::tokenize(std::string_view text) const {
  if (!is_utf8(text))
    throw Error(ErrorCode::invalid_argument, "prompt", "the text is not valid UTF-8",
                "save the file or set the terminal to UTF-8");
  std::vector<std::int64_t> ids{tables_->begin};
  std::size_t segment = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto special = std::ranges::find_if(tables_->specials, [&](const auto& entry) {
      return text.substr(i).starts_with(entry.first);
    });
    if (special == tables_->specials.end()) {
      ++i;
      continue;
    }
    tables_->append_segment(text.substr(segment, i - segment), ids);
    ids.insert(ids.end(), special->second.begin(), special->second.end());
    segment = i += special->first.size();
  }
  tables_->append_segment(text.substr(segment), ids);
  ids.push_back(tables_->end);
  return ids;
}

EncodedPrompt ClipTokenizer::encode(std::string_view text, std::int64_t length) const {
  EncodedPrompt out;
  out.ids = tokenize(text);
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
    for (std::size_t i = 0; i < symbols.size();) {
      const std::size_t bytes = static_cast<unsigned char>(symbols[i]) < 0x80 ? 1 : 2;
      const auto found = symbol_bytes().find(symbols.substr(i, bytes));
      if (found != symbol_bytes().end()) out += found->second;
      i += bytes;
    }
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

}  // namespace ringlet::models
