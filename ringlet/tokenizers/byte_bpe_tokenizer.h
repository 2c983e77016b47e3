// The byte-level byte-pair tokenizer of GPT-2 (Radford et al. 2019) and RoBERTa: every text has
// tokens, and its bytes come back from them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/tokenizers/byte_pair.h"
#include "ringlet/tokenizers/tokenizer.h"

namespace ringlet::tokenizers {

class ByteBpeTokenizer final : public Tokenizer {
 public:
  /// A folder with vocab.json and merges.txt, or tokenizer.json. Special tokens are "<|endoftext|>"
  /// (GPT-2) or "<s>", "</s>", "<pad>" (RoBERTa), whichever the vocabulary has. Throws
  /// Error(not_found | bad_format | unsupported).
  static ByteBpeTokenizer open(const std::filesystem::path& folder);

  /// The tokens of a text, without special ones, and the bytes that each stands for. Throws
  /// Error(invalid_argument) when the text is not UTF-8.
  EncodedText tokenize(std::string_view text) const;

  /// "<s> text </s>", at most `length` tokens. Throws Error(unsupported) for a vocabulary without
  /// these tokens or "<pad>".
  EncodedText encode(std::string_view text, std::int64_t length) const override;

  /// "<s> first </s></s> second </s>"; what is too long is cut from the second.
  EncodedText encode(std::string_view first, std::string_view second,
                     std::int64_t length) const override;

  /// Without special tokens where the vocabulary lacks "<s>" or "<pad>" (GPT-2).
  std::vector<std::int64_t> ids(std::string_view text) const override;

  /// The text of tokens; special ones are left out.
  std::string decode(std::span<const std::int64_t> ids) const;

  std::string token(std::int64_t id) const override;
  std::int64_t pad_id() const override { return pad_; }
  std::int64_t end_id() const { return end_; }  ///< "</s>" or "<|endoftext|>"
  std::int64_t vocabulary_size() const override { return tables_->tokens.rbegin()->first + 1; }

 private:
  std::shared_ptr<const BytePairTables> tables_;
  std::int64_t begin_ = -1, end_ = -1, pad_ = -1;
};

/// The parts of a text that GPT-2 merges by themselves: 's 't 're 've 'm 'll 'd, letters, digits or
/// other signs with a space before them or without, and white space.
std::vector<TextPart> split_for_gpt2(std::string_view text);

/// vocab.json and merges.txt learnt from texts, with these special tokens first.
struct LearntBytePairs {
  std::string vocabulary;  ///< vocab.json
  std::string merges;      ///< merges.txt
};
LearntBytePairs learn_byte_pairs(const std::vector<std::string>& texts, std::size_t vocabulary,
                                 const std::vector<std::string>& specials);

}  // namespace ringlet::tokenizers
