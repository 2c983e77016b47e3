// BERT's tokenizer: words are cut into the longest pieces that the vocabulary has (WordPiece; Wu et
// al. 2016, Devlin et al. 2019).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ringlet/tokenizers/unicode_text.h"

namespace ringlet::tokenizers {

/// A text, or two, as an encoder takes them, and where each token comes from.
struct EncodedText {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> types;  ///< 0 for the first text, 1 for the second
  std::vector<TextPart> parts;      ///< in its own text; empty for special tokens
  std::size_t second = 0;           ///< where the second text's tokens begin; 0 = there is none
};

class WordPieceTokenizer {
 public:
  /// A folder with vocab.txt, or with a tokenizer.json of the kind WordPiece;
  /// tokenizer_config.json says whether letters are lowered (as BERT's uncased models do, the
  /// default). Throws Error(not_found | bad_format | unsupported).
  static WordPieceTokenizer open(const std::filesystem::path& folder);

  /// "[CLS] text [SEP]", at most `length` tokens.
  EncodedText encode(std::string_view text, std::int64_t length) const;

  /// "[CLS] first [SEP] second [SEP]"; what is too long is cut from the second. Throws
  /// Error(invalid_argument) when the first alone is too long.
  EncodedText encode(std::string_view first, std::string_view second, std::int64_t length) const;

  std::int64_t pad_id() const { return pad_; }
  std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }

 private:
  std::int64_t id_of(const std::string& token) const;
  void append(std::string_view text, std::int64_t type, EncodedText& out) const;
  void append_word(const std::vector<CodePoint>& word, std::int64_t type, EncodedText& out) const;

  std::unordered_map<std::string, std::int64_t> ids_;
  std::string where_;
  bool lower_ = true;
  std::int64_t begin_ = 0, end_ = 0, pad_ = 0, unknown_ = 0;
};

/// The lines of a vocab.txt for texts: special tokens, letters, and the pieces that frequent words
/// are made of, joined pair by pair as byte pairs are (Sennrich et al. 2016), the most frequent
/// first. Deterministic.
std::vector<std::string> learn_wordpieces(const std::vector<std::string>& texts,
                                          std::size_t vocabulary);

}  // namespace ringlet::tokenizers
