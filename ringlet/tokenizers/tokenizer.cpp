#include "ringlet/tokenizers/tokenizer.h"

#include <algorithm>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "ringlet/tokenizers/t5_tokenizer.h"
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

/// "WordPiece", "Unigram", … as a folder's tokenizer.json has it, or what its other files say; ""
/// for none and for damaged ones.
std::string kind_of(const fs::path& folder) {
  if (fs::exists(folder / "spiece.model")) return "Unigram";
  if (fs::exists(folder / "vocab.json")) return "BPE";
  if (fs::exists(folder / "vocab.txt")) return "WordPiece";
  if (!fs::exists(folder / "tokenizer.json")) return "";
  const Json whole = read_json_file(folder / "tokenizer.json");
  if (!whole.is_object() || !whole.contains("model") || !whole.at("model").is_object()) return "";
  const Json type = whole.at("model").value("type", Json());
  return type.is_string() ? type.get<std::string>() : "";
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
  const std::string kind = kind_of(folder);
  if (kind == "Unigram") return std::make_shared<T5Tokenizer>(T5Tokenizer::open(folder));
  if (kind == "WordPiece")
    return std::make_shared<WordPieceTokenizer>(WordPieceTokenizer::open(folder));
  if (ends_words(vocabulary_of(folder)))
    return std::make_shared<ClipTokenizer>(ClipTokenizer::open(folder));
  return std::make_shared<ByteBpeTokenizer>(ByteBpeTokenizer::open(folder));
}

}  // namespace ringlet::tokenizers
