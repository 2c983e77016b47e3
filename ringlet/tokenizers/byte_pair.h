// Byte-pair encoding (Sennrich et al. 2016) over bytes (Radford et al. 2019): what CLIP's, GPT-2's
// and RoBERTa's tokenizers share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ringlet::tokenizers {

/// The printable character that stands for a byte in vocabularies (GPT-2's table), 256 of them.
const std::vector<std::string>& byte_symbols();

/// The bytes that a token's characters stand for; others are left out.
std::string symbol_bytes(std::string_view symbols);

/// A vocabulary with its merges.
struct BytePairTables {
  struct Merge {
    std::int64_t rank;
    std::int64_t result;
  };
  struct PairHash {
    std::size_t operator()(const std::pair<std::int64_t, std::int64_t>& p) const {
      return static_cast<std::size_t>(p.first * 1000003 + p.second);
    }
  };

  std::unordered_map<std::string, std::int64_t> ids;
  std::map<std::int64_t, std::string> tokens;
  std::unordered_map<std::pair<std::int64_t, std::int64_t>, Merge, PairHash> merges;
  std::string where;  ///< for error texts: the file

  /// A folder with vocab.json and merges.txt, or tokenizer.json with that in it, whose
  /// end_of_word_suffix must be this. `kind` names the tokenizer in errors. Throws Error(not_found
  /// | bad_format | unsupported).
  void read(const std::filesystem::path& folder, std::string_view end_of_word, const char* kind);

  /// Throws Error(bad_format) for a token that the vocabulary lacks.
  std::int64_t id_of(const std::string& token) const;

  /// Joins the pair of lowest rank first, the leftmost of equals, in O(n log n); symbols below 0
  /// are never joined.
  std::vector<std::int64_t> merged(std::vector<std::int64_t> symbols) const;
};

/// A word as symbols, and how often it occurs.
struct CountedWord {
  std::vector<std::int64_t> symbols;
  std::int64_t count = 0;
};

/// Joins the most frequent pair of neighbours (of equals the one with the smaller numbers) into a
/// new symbol, the number that `joined` gives it, until there are `merges` of them or no pair
/// occurs twice.
void learn_merges(std::vector<CountedWord> words, std::size_t merges,
                  const std::function<std::int64_t(std::int64_t left, std::int64_t right)>& joined);

}  // namespace ringlet::tokenizers
