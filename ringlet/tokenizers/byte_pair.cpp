#include "ringlet/tokenizers/byte_pair.h"

#include <algorithm>
#include <fstream>
#include <queue>
#include <set>
#include <tuple>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/tokenizers/clip_text_split.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

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

Source read_tokenizer_json(const fs::path& path, std::string_view end_of_word, const char* kind) {
  const std::string where = path.string();
  const Json json = read_json_file(path);
  const Json model = json_require<Json>(json, "model", where);
  if (json_value<std::string>(model, "type", "BPE", where) != "BPE" ||
      json_value<std::string>(model, "end_of_word_suffix", "", where) != end_of_word)
    throw Error(ErrorCode::unsupported, where, std::string("this is not a ") + kind + " tokenizer",
                "give the tokenizer that the model was published with");
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

Source read_source(const fs::path& folder, std::string_view end_of_word, const char* kind) {
  if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt"))
    return {read_json_file(folder / "vocab.json"), read_merges(folder / "merges.txt"),
            (folder / "vocab.json").string()};
  if (fs::exists(folder / "tokenizer.json"))
    return read_tokenizer_json(folder / "tokenizer.json", end_of_word, kind);
  throw Error(ErrorCode::not_found, folder.string(), std::string("no ") + kind + " tokenizer here",
              "a tokenizer folder holds vocab.json and merges.txt, or tokenizer.json");
}

}  // namespace

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

std::string symbol_bytes(std::string_view symbols) {
  static const std::unordered_map<std::string, char> table = [] {
    std::unordered_map<std::string, char> bytes;
    for (std::size_t i = 0; i < 256; ++i) bytes[byte_symbols()[i]] = static_cast<char>(i);
    return bytes;
  }();
  std::string bytes;
  for (std::size_t i = 0; i < symbols.size();) {
    const std::size_t length = static_cast<unsigned char>(symbols[i]) < 0x80 ? 1 : 2;
    const auto found = table.find(std::string(symbols.substr(i, length)));
    if (found != table.end()) bytes += found->second;
    i += length;
  }
  return bytes;
}

std::int64_t BytePairTables::id_of(const std::string& token) const {
  const auto found = ids.find(token);
  if (found == ids.end())
    throw Error(ErrorCode::bad_format, where, "the vocabulary lacks \"" + token + "\"");
  return found->second;
}

void BytePairTables::read(const fs::path& folder, std::string_view end_of_word, const char* kind) {
  const Source source = read_source(folder, end_of_word, kind);
  where = source.where;

  if (!source.vocabulary.is_object())
    throw Error(ErrorCode::bad_format, where, "the vocabulary is not a JSON object");
  for (const auto& [token, id] : source.vocabulary.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > 1 << 24)
      throw Error(ErrorCode::bad_format, where, "the id of \"" + token + "\" is not a valid index");
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

std::vector<std::int64_t> BytePairTables::merged(std::vector<std::int64_t> symbols) const {
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
  std::erase(symbols, kGone);
  return symbols;
}

namespace {

using Pair = std::pair<std::int64_t, std::int64_t>;

/// Pairs of neighbours in all words, kept up to date while words change.
class PairCounts {
 public:
  explicit PairCounts(const std::vector<CountedWord>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) add(words[i], i, 1);
  }

  /// Adds a word's pairs, or with sign -1 takes them away.
  void add(const CountedWord& word, std::size_t number, std::int64_t sign) {
    for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const Pair pair{word.symbols[i], word.symbols[i + 1]};
      counts_[pair] += sign * word.count;
      if (sign > 0) places_[pair].insert(number);
    }
  }

  /// The most frequent pair that occurs twice at least.
  const std::pair<const Pair, std::int64_t>* best() const {
    const std::pair<const Pair, std::int64_t>* found = nullptr;
    for (const auto& entry : counts_)
      if (entry.second > 1 && (found == nullptr || entry.second > found->second)) found = &entry;
    return found;
  }

  /// The words that have the pair, or had it once; they are to be added anew.
  std::set<std::size_t> take_places(const Pair& pair) {
    return std::move(places_.extract(pair).mapped());
  }

 private:
  std::map<Pair, std::int64_t> counts_;
  std::map<Pair, std::set<std::size_t>> places_;
};

}  // namespace

void learn_merges(
    std::vector<CountedWord> words, std::size_t merges,
    const std::function<std::int64_t(std::int64_t left, std::int64_t right)>& joined) {
  PairCounts counts(words);
  for (std::size_t made = 0; made < merges; ++made) {
    const auto* best = counts.best();
    if (best == nullptr) return;
    const Pair pair = best->first;
    const std::int64_t symbol = joined(pair.first, pair.second);
    for (const std::size_t number : counts.take_places(pair)) {
      CountedWord& word = words[number];
      counts.add(word, number, -1);
      for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i)
        if (word.symbols[i] == pair.first && word.symbols[i + 1] == pair.second) {
          word.symbols[i] = symbol;
          word.symbols.erase(word.symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
      counts.add(word, number, 1);
    }
  }
}

}  // namespace ringlet::tokenizers
