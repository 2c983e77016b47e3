// Words that textual inversion teaches to Stable Diffusion's text encoders.
#include <cctype>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/pipeline/embedding.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

bool is_word_byte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return std::isalnum(byte) != 0 || c == '_' || byte >= 0x80;
}

/// The word of the text that holds the place: longer than the place's own where letters, digits or
/// underscores touch its own ("<cat>s" is not one word).
std::string surrounding_word(const std::string& text, const tokenizers::WordPlace& place) {
  std::size_t begin = place.begin, end = place.begin + place.word.size();
  if (is_word_byte(place.word.front()))
    while (begin > 0 && is_word_byte(text[begin - 1])) --begin;
  if (is_word_byte(place.word.back()))
    while (end < text.size() && is_word_byte(text[end])) ++end;
  return text.substr(begin, end - begin);
}

}  // namespace

std::vector<std::string> StableDiffusion::add_embeddings(const fs::path& file,
                                                         const std::string& word) {
  std::vector<TextEmbedding> embeddings = read_embeddings(file);
  if (!word.empty() && embeddings.size() > 1)
    throw Error(ErrorCode::invalid_argument, file.string(),
                "holds several words, which cannot all be called \"" + word + "\"",
                "do not give a word");
  std::vector<std::string> added;
  for (TextEmbedding& embedding : embeddings) {
    if (!word.empty()) embedding.word = word;
    add_embedding(file, embedding);
    added.push_back(embedding.word);
    embedding_words_.push_back(embedding.word);
  }
  return added;
}

void StableDiffusion::check_embedding_words(std::span<const std::string> texts) const {
  const tokenizers::Tokenizer& tokenizer = *text_.front().tokenizer;
  std::map<std::string, std::string> inside;  // by word: the first word that holds it
  std::set<std::string> used;
  for (const std::string& text : texts)
    for (const tokenizers::WordPlace& place : tokenizer.own_words(text)) {
      used.insert(place.word);
      const std::string around = surrounding_word(text, place);
      if (around.size() > place.word.size()) inside.emplace(place.word, around);
    }
  for (const auto& [word, around] : inside)
    log(LogLevel::warning, "the word \"" + word + "\" of an embedding is part of \"" + around +
                               "\" and replaces that part; give it another word "
                               "(`embedding=FILE:word`) if that is not intended");
  for (const std::string& word : embedding_words_)
    if (!used.contains(word))
      log(LogLevel::warning,
          "no prompt uses the word \"" + word + "\" of an embedding: it changes nothing");
}

void StableDiffusion::add_embedding(const fs::path& file, const TextEmbedding& embedding) {
  if (embedding.rows.size() != text_.size())
    throw Error(ErrorCode::mismatch, file.string(),
                "is for " + std::to_string(embedding.rows.size()) +
                    " text encoder(s), the model has " + std::to_string(text_.size()),
                "use an embedding that was made for this kind of model");
  for (std::size_t i = 0; i < text_.size(); ++i)
    if (embedding.rows[i].size(1) != text_[i].encoder.config().hidden_size)
      throw Error(ErrorCode::mismatch, file.string(),
                  "has vectors of " + std::to_string(embedding.rows[i].size(1)) +
                      " numbers, the model's text encoder takes " +
                      std::to_string(text_[i].encoder.config().hidden_size),
                  "use an embedding that was made for this kind of model");
  for (std::size_t i = 0; i < text_.size(); ++i) {
    std::vector<std::int64_t> ids(static_cast<std::size_t>(embedding.rows[i].size(0)));
    std::iota(ids.begin(), ids.end(), text_[i].encoder.config().vocab_size);
    // The tokenizer first: it may refuse the word.
    text_[i].tokenizer = text_[i].tokenizer->with_word(embedding.word, ids);
    text_[i].encoder.add_tokens(embedding.rows[i]);
  }
}

}  // namespace ringlet::pipeline
