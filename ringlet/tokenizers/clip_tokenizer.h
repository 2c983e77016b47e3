// Byte-pair tokenizer of CLIP (Radford et al. 2021; Sennrich et al. 2016), with the clean-up rules
// of the Hugging Face fast tokenizer: NFC, white space to one space, lower case, nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ringlet::tokenizers {

/// A prompt as a text encoder takes it.
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

class ClipTokenizer {
 public:
  /// Reads a tokenizer folder: vocab.json and merges.txt, or tokenizer.json; the special tokens
  /// from tokenizer_config.json and special_tokens_map.json where present. `pad_token` replaces the
  /// configured one (OpenCLIP encoders pad with "!").
  /// Throws Error(not_found | bad_format | unsupported).
  static ClipTokenizer open(const std::filesystem::path& folder, const std::string& pad_token = {});

  /// The same with a word of its own that stands for these ids (textual inversion). It is found
  /// anywhere in the raw text, inside other words too and whatever the case of its ASCII letters,
  /// as transformers does it. Throws Error(invalid_argument) for a word that is empty or taken.
  ClipTokenizer with_word(const std::string& word, const std::vector<std::int64_t>& ids) const;

  /// All ids of a text with begin and end, not cut. Throws Error(invalid_argument) when the text is
  /// not UTF-8.
  std::vector<std::int64_t> tokenize(std::string_view text) const;

  /// Where tokenize() finds words of with_word.
  std::vector<WordPlace> own_words(std::string_view text) const;

  /// Ids cut and padded to `length` (77 for Stable Diffusion). The end token is always there.
  EncodedPrompt encode(std::string_view text, std::int64_t length) const;

  /// Readable text of ids; special tokens are left out.
  std::string decode(std::span<const std::int64_t> ids) const;

  std::string token(std::int64_t id) const;  ///< as in the vocabulary: "cat</w>"
  std::int64_t begin_id() const;
  std::int64_t end_id() const;
  std::int64_t pad_id() const;
  std::int64_t vocabulary_size() const;  ///< largest id + 1
  std::int64_t max_length() const;       ///< the configuration's model_max_length

 private:
  struct Tables;
  explicit ClipTokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

}  // namespace ringlet::tokenizers
