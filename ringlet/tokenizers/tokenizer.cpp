#include "ringlet/tokenizers/tokenizer.h"

#include <algorithm>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "ringlet/tokenizers/wordpiece_tokenizer.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

Error unsupported(const char* what) { return {ErrorCode::unsupported, "tokenizer", what}; }

/// The vocabulary of byte pairs in a folder, or of whatever its tokenizer.json has; null for none.
/// Damage is left for the tokenizer's own open() to report.
Json vocabulary_of(const fs::path& folder) {
  if (fs::exists(folder / "vocab.json")) return read_json_file(folder / "vocab.json");
  if (!fs::exists(folder / "tokenizer.json")) return {};
  const Json whole = read_json_file(folder / "tokenizer.json");
  const auto model = whole.is_object() ? whole.find("model") : whole.end();
  return model != whole.end() && model->is_object() && model->contains("vocab") ? model->at("vocab")
                                                                                : Json();
}

bool is_wordpiece(const fs::path& folder) {
  if (fs::exists(folder / "vocab.json")) return false;
  if (fs::exists(folder / "vocab.txt")) return true;
  if (!fs::exists(folder / "tokenizer.json")) return false;
  const Json whole = read_json_file(folder / "tokenizer.json");
  return whole.is_object() && whole.contains("model") && whole.at("model").is_object() &&
         whole.at("model").value("type", Json()) == "WordPiece";
}

bool ends_words(const Json& vocabulary) {
  if (!vocabulary.is_object() || vocabulary.empty())
    return true;  // CLIP's open() says what is wrong
  const auto tokens = vocabulary.items();
  return std::any_of(tokens.begin(), tokens.end(),
                     [](const auto& token) { return token.key().ends_with("</w>"); });
}

}  // namespace

EncodedText Tokenizer::encode(std::string_view /*text*/, std::int64_t /*length*/) const {
  throw unsupported("it does not give the positions of tokens in a text");
}

EncodedText Tokenizer::encode(std::string_view /*first*/, std::string_view /*second*/,
                              std::int64_t /*length*/) const {
  throw unsupported("it takes one text, not two");
}

EncodedPrompt Tokenizer::encode_prompt(std::string_view /*text*/, std::int64_t /*length*/) const {
  throw unsupported("it does not encode prompts");
}

std::shared_ptr<const Tokenizer> Tokenizer::with_word(
    const std::string& /*word*/, const std::vector<std::int64_t>& /*ids*/) const {
  throw unsupported("words cannot be added to it");
}

std::vector<WordPlace> Tokenizer::own_words(std::string_view /*text*/) const { return {}; }

std::shared_ptr<const Tokenizer> open_tokenizer(const fs::path& folder) {
  if (is_wordpiece(folder))
    return std::make_shared<WordPieceTokenizer>(WordPieceTokenizer::open(folder));
  if (ends_words(vocabulary_of(folder)))
    return std::make_shared<ClipTokenizer>(ClipTokenizer::open(folder));
  return std::make_shared<ByteBpeTokenizer>(ByteBpeTokenizer::open(folder));
}

}  // namespace ringlet::tokenizers
