#include "ringlet/tokenizers/sentence_piece_model.h"

#include <bit>
#include <set>

#include <sentencepiece_processor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/read_file.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLargestModel = std::uint64_t{1} << 30;

/// Fields of a protocol buffer message (its encoding is public): enough of it to hand the library a
/// model that comes from another file.
class Message {
 public:
  void number(unsigned field, std::uint64_t value) {
    key(field, 0);
    varint(value);
  }
  void real(unsigned field, float value) {
    key(field, 5);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int byte = 0; byte < 4; ++byte) bytes_ += static_cast<char>(bits >> (8 * byte) & 0xFF);
  }
  void text(unsigned field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(unsigned field, unsigned type) { varint(field << 3 | type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

/// Field numbers of sentencepiece_model.proto.
constexpr unsigned kPieces = 1, kNormalizer = 3;
constexpr unsigned kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr unsigned kNormalizerName = 1, kNormalizerCharacters = 2;
constexpr std::uint64_t kNormalPiece = 1, kUnknownPiece = 2, kControlPiece = 3;

std::string from_base64(const std::string& text, const std::string& where) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : std::string_view(text).substr(0, text.find('='))) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos)
      throw Error(ErrorCode::bad_format, where, "\"precompiled_charsmap\" is not base64");
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if ((held += 6) >= 8) out += static_cast<char>(bits >> (held -= 8) & 0xFF);
  }
  return out;
}

/// The table of characters of a normaliser, which may be one of a sequence; "" = it has none.
std::string character_table(const Json& normalizer, const std::string& where) {
  if (!normalizer.is_object()) return "";
  if (json_value<std::string>(normalizer, "type", "", where) == "Precompiled")
    return from_base64(json_require<std::string>(normalizer, "precompiled_charsmap", where), where);
  for (const Json& part : json_value(normalizer, "normalizers", Json::array(), where))
    if (std::string table = character_table(part, where); !table.empty()) return table;
  return "";
}

Message piece_message(const Json& entry, std::uint64_t type, const std::string& where) {
  if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
    throw Error(ErrorCode::bad_format, where, "a piece of \"vocab\" is not a text with a score");
  Message piece;
  piece.text(kPieceText, entry[0].get<std::string>());
  piece.real(kPieceScore, entry[1].get<float>());
  piece.number(kPieceType, type);
  return piece;
}

}  // namespace

struct SentencePieceModel::Library {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel(std::string_view model, const std::string& where) {
  const auto library = std::make_shared<Library>();
  const auto status = library->processor.LoadFromSerializedProto(model);
  if (!status.ok() || library->processor.GetPieceSize() == 0)
    throw Error(ErrorCode::bad_format, where, "is not a model of SentencePiece",
                "download the file again; a page about Git LFS is often in its place");
  library_ = library;
}

SentencePieceModel SentencePieceModel::from_file(const fs::path& file) {
  return {read_file(file, kLargestModel), file.string()};
}

SentencePieceModel SentencePieceModel::from_tokenizer_json(const fs::path& file) {
  const std::string where = file.string();
  const Json whole = read_json_file(file);
  const Json model = json_require<Json>(whole, "model", where);
  if (json_value<std::string>(model, "type", "", where) != "Unigram")
    throw Error(ErrorCode::unsupported, where, "is not a Unigram tokenizer");
  if (json_value(model, "byte_fallback", false, where))
    throw Error(
        ErrorCode::unsupported, where, "field \"byte_fallback\" is true",
        "ringlet reads tokenizers without it, as T5's is; or use the folder's spiece.model");
  std::set<std::string> added;
  for (const Json& token : json_value(whole, "added_tokens", Json::array(), where))
    added.insert(json_require<std::string>(token, "content", where));
  const auto unknown = json_require<std::size_t>(model, "unk_id", where);
  const Json pieces = json_require<Json>(model, "vocab", where);
  if (!pieces.is_array() || unknown >= pieces.size())
    throw Error(ErrorCode::bad_format, where, "\"unk_id\" is not in \"vocab\"");
  Message out;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const bool is_added = pieces[i].is_array() && !pieces[i].empty() && pieces[i][0].is_string() &&
                          added.contains(pieces[i][0].get<std::string>());
    const std::uint64_t type = i == unknown ? kUnknownPiece
                               : is_added   ? kControlPiece
                                            : kNormalPiece;
    out.text(kPieces, piece_message(pieces[i], type, where).bytes());
  }
  Message normalizer;
  const std::string table =
      character_table(json_value(whole, "normalizer", Json::object(), where), where);
  normalizer.text(kNormalizerName, table.empty() ? "identity" : "user_defined");
  if (!table.empty()) normalizer.text(kNormalizerCharacters, table);
  out.text(kNormalizer, normalizer.bytes());
  return {out.bytes(), where};
}

std::vector<TextPiece> SentencePieceModel::encode(std::string_view text) const {
  sentencepiece::ImmutableSentencePieceText found;
  const auto status = library_->processor.Encode(text, found.mutable_proto());
  if (!status.ok()) throw Error(ErrorCode::internal, "text", status.ToString());
  std::vector<TextPiece> pieces;
  for (const auto& piece : found.pieces())
    pieces.push_back({static_cast<std::int64_t>(piece.id()), piece.begin()});
  return pieces;
}

std::int64_t SentencePieceModel::size() const { return library_->processor.GetPieceSize(); }

std::string SentencePieceModel::piece(std::int64_t id) const {
  return id >= 0 && id < size() ? library_->processor.IdToPiece(static_cast<int>(id)) : "";
}

bool SentencePieceModel::is_special(std::int64_t id) const {
  const auto index = static_cast<int>(id);
  return library_->processor.IsControl(index) || library_->processor.IsUnknown(index);
}

}  // namespace ringlet::tokenizers
