// BERT's tokenizer: words are cut into the longest pieces that the vocabulary has (WordPiece; Wu et
// al. 2016, Devlin et al. 2019).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ringlet/tokenizers/tokenizer.h"
#include "ringlet/tokenizers/unicode_text.h"

namespace ringlet::tokenizers {

class WordPieceTokenizer final : public Tokenizer {
 public:
  /// A folder with vocab.txt, or with a tokenizer.json of the kind WordPiece;
  /// tokenizer_config.json says whether letters are lowered (as BERT's uncased models do, the
  /// default). Throws Error(not_found | bad_format | unsupported).
  static WordPieceTokenizer open(const std::filesystem::path& folder);

  /// "[CLS] text [SEP]", at most `length` tokens.
  EncodedText encode(std::string_view text, std::int64_t length) const override;

  /// "[CLS] first [SEP] second [SEP]"; what is too long is cut from the second. Throws
  /// Error(invalid_argument) when the first alone is too long.
  EncodedText encode(std::string_view first, std::string_view second,
                     std::int64_t length) const override;

  std::vector<std::int64_t> ids(std::string_view text) const override;
  std::string token(std::int64_t id) const override;
  std::int64_t pad_id() const override { return pad_; }
  std::int64_t vocabulary_size() const override { return static_cast<std::int64_t>(ids_.size()); }

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
