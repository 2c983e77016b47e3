// What texts become before a network reads them: numbers of tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/tokenizers/unicode_text.h"

namespace ringlet::tokenizers {

/// A text, or two, as an encoder takes them, and where each token comes from.
struct EncodedText {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> types = {};  ///< 0 for the first text, 1 for the second
  std::vector<TextPart> parts = {};      ///< in its own text; empty for special tokens
  std::size_t second = 0;  ///< where the second text's tokens begin; 0 = there is none
};

/// A prompt for a text encoder of a fixed length.
struct EncodedPrompt {
  std::vector<std::int64_t> ids;  ///< begin, tokens, end, padding; exactly the length asked for
  std::int64_t used = 0;          ///< ids before the padding, begin and end included
  std::string cut;                ///< the part of the prompt that did not fit, or ""
};

/// A word of with_word in a text.
struct WordPlace {
  std::string word;
  std::size_t begin = 0;  ///< its first byte in the text
};

/// The tokenizer of a published network. All texts must be UTF-8, else Error(invalid_argument).
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// All ids of a text, not cut, with the special tokens that the network wants around it.
  virtual std::vector<std::int64_t> ids(std::string_view text) const = 0;

  /// The same cut to `length` with its special tokens, and where the tokens come from. Throws
  /// Error(unsupported) where the positions of tokens are unknown, or no special ones surround the
  /// text.
  virtual EncodedText encode(std::string_view text, std::int64_t length) const;

  /// Two texts for one network; what is too long is cut from the second. Throws
  /// Error(invalid_argument) when the first alone is too long, Error(unsupported) for a tokenizer
  /// of single texts.
  virtual EncodedText encode(std::string_view first, std::string_view second,
                             std::int64_t length) const;

  /// Ids cut and padded to `length`; the last special token is always there. Throws
  /// Error(unsupported) for a tokenizer that does not encode prompts.
  virtual EncodedPrompt encode_prompt(std::string_view text, std::int64_t length) const;

  /// The same tokenizer with an added word for these ids (textual inversion). Throws
  /// Error(invalid_argument) for a word that is empty or taken, Error(unsupported) where words
  /// cannot be added.
  virtual std::shared_ptr<const Tokenizer> with_word(const std::string& word,
                                                     const std::vector<std::int64_t>& ids) const;

  /// Where a text uses words of with_word.
  virtual std::vector<WordPlace> own_words(std::string_view text) const;

  virtual std::string token(std::int64_t id) const = 0;  ///< as in the vocabulary; "" = no such
  virtual std::int64_t pad_id() const = 0;               ///< below 0 where there is none
  virtual std::int64_t vocabulary_size() const = 0;      ///< largest id + 1

  /// How many tokens a prompt holds, where the configuration says it; 0 = it does not.
  virtual std::int64_t max_length() const { return 0; }
};

/// The tokenizer of a folder, by its files: vocab.txt or a tokenizer.json of the kind WordPiece is
/// BERT's, spiece.model or a tokenizer.json of the kind Unigram is T5's; byte pairs are CLIP's
/// where tokens end in "</w>", else GPT-2's. Throws as the open() of each.
std::shared_ptr<const Tokenizer> open_tokenizer(const std::filesystem::path& folder);

}  // namespace ringlet::tokenizers
