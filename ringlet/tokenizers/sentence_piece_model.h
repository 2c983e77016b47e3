// SentencePiece's unigram model (Kudo 2018, "Subword Regularization"), computed by its own library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ringlet::tokenizers {

/// A piece of a text.
struct TextPiece {
  std::int64_t id = 0;
  std::size_t begin = 0;  ///< its first byte in the text
};

class SentencePieceModel {
 public:
  /// Reads a spiece.model. Throws Error(not_found | io), and Error(bad_format) for a file that the
  /// library does not take.
  static SentencePieceModel from_file(const std::filesystem::path& file);

  /// Reads a tokenizer.json of the kind Unigram: its pieces, their scores and its table of
  /// characters. The pieces of "added_tokens" are never found in a text. Throws as from_file, and
  /// Error(unsupported) for another kind or for pieces of bytes.
  static SentencePieceModel from_tokenizer_json(const std::filesystem::path& file);

  /// The most likely pieces of a text in UTF-8, without special ones.
  std::vector<TextPiece> encode(std::string_view text) const;

  std::int64_t size() const;
  std::string piece(std::int64_t id) const;  ///< "" = no such
  /// Whether a piece stands for itself (end of text, padding, unknown) and is in no text.
  bool is_special(std::int64_t id) const;

 private:
  struct Library;
  SentencePieceModel(std::string_view model, const std::string& where);

  std::shared_ptr<const Library> library_;
};

}  // namespace ringlet::tokenizers
