#include "ringlet/tokenizers/t5_tokenizer.h"

#include <algorithm>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kUsualSentinels = 100;
constexpr double kLongestSaid = 1e6;  // configurations write 1e30 for "any"

SentencePieceModel model_of(const fs::path& folder) {
  if (fs::exists(folder / "spiece.model"))
    return SentencePieceModel::from_file(folder / "spiece.model");
  if (fs::exists(folder / "tokenizer.json"))
    return SentencePieceModel::from_tokenizer_json(folder / "tokenizer.json");
  throw Error(ErrorCode::not_found, folder.string(), "no tokenizer of T5 here",
              "T5's folders hold spiece.model or tokenizer.json");
}

std::string sentinel(std::int64_t number) { return "<extra_id_" + std::to_string(number) + ">"; }

}  // namespace

T5Tokenizer T5Tokenizer::open(const fs::path& folder) {
  T5Tokenizer tokenizer(model_of(folder));
  std::int64_t sentinels = kUsualSentinels;
  if (const fs::path file = folder / "tokenizer_config.json"; fs::exists(file)) {
    const Json config = read_json_file(file);
    sentinels = json_value(config, "extra_ids", sentinels, file.string());
    const auto longest = json_value(config, "model_max_length", 0.0, file.string());
    if (longest > 0.0 && longest < kLongestSaid)
      tokenizer.max_length_ = static_cast<std::int64_t>(longest);
  }
  tokenizer.add_special_tokens(sentinels, folder.string());
  return tokenizer;
}

void T5Tokenizer::add_special_tokens(std::int64_t sentinels, const std::string& where) {
  end_ = pad_ = -1;
  bool has_sentinels = false;
  for (std::int64_t id = 0; id < model_.size(); ++id) {
    if (!model_.is_special(id)) continue;
    const std::string text = model_.piece(id);
    if (text == "</s>") end_ = id;
    if (text == "<pad>") pad_ = id;
    has_sentinels = has_sentinels || text == sentinel(0);
    specials_.push_back({text, id});
  }
  if (end_ < 0 || pad_ < 0)
    throw Error(ErrorCode::bad_format, where,
                std::string("the tokenizer has no \"") + (end_ < 0 ? "</s>" : "<pad>") + "\"",
                "it is not T5's");
  if (has_sentinels) return;
  for (std::int64_t number = sentinels - 1; number >= 0; --number)
    specials_.push_back({sentinel(number), model_.size() + sentinels - 1 - number});
}

const T5Tokenizer::Special* T5Tokenizer::special_at(std::string_view text) const {
  const auto found = std::ranges::find_if(
      specials_, [&](const Special& special) { return text.starts_with(special.text); });
  return found == specials_.end() ? nullptr : &*found;
}

std::vector<TextPiece> T5Tokenizer::pieces(std::string_view text) const {
  if (!is_utf8(text))
    throw Error(ErrorCode::invalid_argument, "prompt", "the text is not valid UTF-8",
                "save the file or set the terminal to UTF-8");
  std::vector<TextPiece> all;
  const auto append = [&](std::size_t begin, std::size_t end) {
    for (const TextPiece& piece : model_.encode(text.substr(begin, end - begin)))
      all.push_back({piece.id, begin + piece.begin});
  };
  std::size_t begin = 0;
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at)) {
    const Special* special = special_at(text.substr(at));
    if (special == nullptr) {
      ++at;
      continue;
    }
    append(begin, at);
    all.push_back({special->id, at});
    begin = at += special->text.size();
  }
  append(begin, text.size());
  return all;
}

std::vector<std::int64_t> T5Tokenizer::ids(std::string_view text) const {
  std::vector<std::int64_t> found;
  for (const TextPiece& piece : pieces(text)) found.push_back(piece.id);
  found.push_back(end_);
  return found;
}

EncodedPrompt T5Tokenizer::encode_prompt(std::string_view text, std::int64_t length) const {
  const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(length, 1));
  std::vector<TextPiece> found = pieces(text);
  EncodedPrompt out;
  if (found.size() >= wanted) {
    out.cut = text.substr(std::min(found[wanted - 1].begin, text.size()));
    found.resize(wanted - 1);
  }
  for (const TextPiece& piece : found) out.ids.push_back(piece.id);
  out.ids.push_back(end_);
  out.used = static_cast<std::int64_t>(out.ids.size());
  out.ids.resize(wanted, pad_);
  return out;
}

std::string T5Tokenizer::token(std::int64_t id) const {
  const auto found = std::ranges::find(specials_, id, &Special::id);
  return found == specials_.end() ? model_.piece(id) : found->text;
}

std::int64_t T5Tokenizer::vocabulary_size() const {
  std::int64_t last = model_.size() - 1;
  for (const Special& special : specials_) last = std::max(last, special.id);
  return last + 1;
}

}  // namespace ringlet::tokenizers
