// T5's tokenizer (Raffel et al. 2020): the pieces of SentencePiece, then an end of text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/tokenizers/sentence_piece_model.h"
#include "ringlet/tokenizers/tokenizer.h"

namespace ringlet::tokenizers {

class T5Tokenizer final : public Tokenizer {
 public:
  /// A folder with spiece.model, or with a tokenizer.json of the kind Unigram;
  /// tokenizer_config.json may say how many sentinels ("<extra_id_0>", …) come after the pieces of
  /// a spiece.model, 100 as a rule, and how long prompts are. Throws Error(not_found | bad_format |
  /// unsupported).
  static T5Tokenizer open(const std::filesystem::path& folder);

  std::vector<std::int64_t> ids(std::string_view text) const override;
  EncodedPrompt encode_prompt(std::string_view text, std::int64_t length) const override;
  std::string token(std::int64_t id) const override;
  std::int64_t pad_id() const override { return pad_; }
  std::int64_t vocabulary_size() const override;
  std::int64_t max_length() const override { return max_length_; }

 private:
  /// A text that is one token wherever it is.
  struct Special {
    std::string text;
    std::int64_t id;
  };

  explicit T5Tokenizer(SentencePieceModel model) : model_(std::move(model)) {}
  void add_special_tokens(std::int64_t sentinels, const std::string& where);
  std::vector<TextPiece> pieces(std::string_view text) const;
  const Special* special_at(std::string_view text) const;

  SentencePieceModel model_;
  std::vector<Special> specials_;
  std::int64_t end_ = 1, pad_ = 0, max_length_ = 0;
};

}  // namespace ringlet::tokenizers
