#include "ringlet/eval/text_metrics.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <numeric>
#include <sstream>

#include "ringlet/core/error.h"

namespace ringlet::eval {
namespace {

std::vector<std::string> normalised_words(const std::string& text) {
  std::string plain;
  for (const char raw : text) {
    const auto c = static_cast<unsigned char>(raw);
    if (c < 0x80 && std::ispunct(c) != 0) continue;
    plain += static_cast<char>(c < 0x80 ? std::tolower(c) : c);
  }
  std::vector<std::string> words = words_of(plain);
  std::erase_if(
      words, [](const std::string& word) { return word == "a" || word == "an" || word == "the"; });
  return words;
}

std::vector<std::string> characters_of(const std::string& text) {
  std::vector<std::string> characters;
  for (const char c : text) characters.emplace_back(1, c);
  return characters;
}

double error_rate(const std::vector<std::string>& said, const std::vector<std::string>& truth,
                  std::vector<std::string> (*split)(const std::string&)) {
  if (said.size() != truth.size())
    throw Error(ErrorCode::mismatch, "evaluation",
                std::to_string(said.size()) + " texts and " + std::to_string(truth.size()) +
                    " true ones do not make pairs");
  std::int64_t edits = 0, all = 0;
  for (std::size_t i = 0; i < said.size(); ++i) {
    const std::vector<std::string> wanted = split(truth[i]);
    edits += edit_distance(split(said[i]), wanted);
    all += static_cast<std::int64_t>(wanted.size());
  }
  if (all == 0) throw Error(ErrorCode::invalid_argument, "evaluation", "the true texts are empty");
  return static_cast<double>(edits) / static_cast<double>(all);
}

}  // namespace

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

AnswerScore answer_score(const std::string& answer, const std::string& truth) {
  const std::vector<std::string> said = normalised_words(answer), wanted = normalised_words(truth);
  if (said.empty() || wanted.empty()) {
    const double same = said == wanted ? 1.0 : 0.0;
    return {same, same};
  }
  std::map<std::string, int> left;
  for (const std::string& word : wanted) ++left[word];
  double common = 0.0;
  for (const std::string& word : said)
    if (left[word]-- > 0) ++common;
  if (common == 0.0) return {};
  const double precision = common / static_cast<double>(said.size());
  const double recall = common / static_cast<double>(wanted.size());
  return {said == wanted ? 1.0 : 0.0, 2.0 * precision * recall / (precision + recall)};
}

std::int64_t edit_distance(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::int64_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::int64_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::int64_t diagonal = row[0]++;
    for (std::size_t k = 0; k < b.size(); ++k) {
      const std::int64_t replaced = diagonal + (a[i] == b[k] ? 0 : 1);
      diagonal = row[k + 1];
      row[k + 1] = std::min({replaced, row[k] + 1, row[k + 1] + 1});
    }
  }
  return row.back();
}

double word_error_rate(const std::vector<std::string>& said,
                       const std::vector<std::string>& truth) {
  return error_rate(said, truth, words_of);
}

double character_error_rate(const std::vector<std::string>& said,
                            const std::vector<std::string>& truth) {
  return error_rate(said, truth, characters_of);
}

}  // namespace ringlet::eval
