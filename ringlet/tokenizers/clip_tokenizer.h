// Byte-pair tokenizer of CLIP (Radford et al. 2021; Sennrich et al. 2016), with the clean-up rules
// of the Hugging Face fast tokenizer: NFC, white space to one space, lower case, nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/tokenizers/tokenizer.h"

namespace ringlet::tokenizers {

class ClipTokenizer final : public Tokenizer {
 public:
  /// Reads a tokenizer folder: vocab.json and merges.txt, or tokenizer.json; the special tokens
  /// from tokenizer_config.json and special_tokens_map.json where present. `pad_token` replaces the
  /// configured one (OpenCLIP encoders pad with "!").
  /// Throws Error(not_found | bad_format | unsupported).
  static ClipTokenizer open(const std::filesystem::path& folder, const std::string& pad_token = {});

  /// The same with an added word for these ids (textual inversion). It is found
  /// anywhere in the raw text, inside other words too and whatever the case of its ASCII letters,
  /// as transformers does it. Throws Error(invalid_argument) for a word that is empty or taken.
  std::shared_ptr<const Tokenizer> with_word(const std::string& word,
                                             const std::vector<std::int64_t>& ids) const override;

  /// All ids of a text with begin and end, not cut. Throws Error(invalid_argument) when the text is
  /// not UTF-8.
  std::vector<std::int64_t> ids(std::string_view text) const override;

  /// Where ids() finds words of with_word.
  std::vector<WordPlace> own_words(std::string_view text) const override;

  /// Ids cut and padded to `length` (77 for Stable Diffusion). The end token is always there.
  EncodedPrompt encode_prompt(std::string_view text, std::int64_t length) const override;

  /// Readable text of ids; special tokens are left out.
  std::string decode(std::span<const std::int64_t> ids) const;

  std::string token(std::int64_t id) const override;  ///< as in the vocabulary: "cat</w>"
  std::int64_t begin_id() const;
  std::int64_t end_id() const;
  std::int64_t pad_id() const override;
  std::int64_t vocabulary_size() const override;  ///< largest id + 1
  std::int64_t max_length() const override;       ///< the configuration's model_max_length

 private:
  struct Tables;
  explicit ClipTokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

}  // namespace ringlet::tokenizers
