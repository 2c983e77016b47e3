#include "ringlet/eval/text_metrics.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <numeric>
#include <sstream>

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::eval {
namespace {

/// What Python's str.split() splits at.
bool is_space(UChar32 c) { return u_isUWhiteSpace(c) || (c >= 0x1c && c <= 0x1f); }

/// What Python's regular expressions call \w, but for the underscore, which is punctuation.
bool is_word(UChar32 c) {
  return u_isalnum(c) || (U_GET_GC_MASK(c) & (U_GC_NL_MASK | U_GC_NO_MASK)) != 0;
}

icu::UnicodeString without_punctuation(const std::string& text) {
  const icu::UnicodeString lower =
      icu::UnicodeString::fromUTF8(text).toLower(icu::Locale::getRoot());
  icu::UnicodeString plain;
  for (std::int32_t i = 0; i < lower.length(); i = lower.moveIndex32(i, 1))
    if (const UChar32 c = lower.char32At(i); c >= 0x80 || std::ispunct(c) == 0) plain.append(c);
  return plain;
}

/// A space in place of every article that is a word by itself.
icu::UnicodeString without_articles(const icu::UnicodeString& text) {
  icu::UnicodeString out, word;
  const auto end_word = [&] {
    out.append(word == u"a" || word == u"an" || word == u"the" ? icu::UnicodeString(u" ") : word);
    word.remove();
  };
  for (std::int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) {
    const UChar32 c = text.char32At(i);
    if (!is_word(c)) end_word();
    (is_word(c) ? word : out).append(c);
  }
  end_word();
  return out;
}

std::vector<std::string> normalised_words(const std::string& text) {
  const icu::UnicodeString plain = without_articles(without_punctuation(text));
  std::vector<std::string> words;
  icu::UnicodeString word;
  const auto end_word = [&] {
    if (!word.isEmpty()) word.toUTF8String(words.emplace_back());
    word.remove();
  };
  for (std::int32_t i = 0; i < plain.length(); i = plain.moveIndex32(i, 1)) {
    const UChar32 c = plain.char32At(i);
    if (is_space(c))
      end_word();
    else
      word.append(c);
  }
  end_word();
  return words;
}

std::vector<std::string> characters_of(const std::string& text) {
  const std::string squeezed = join(words_of(text), " ");
  std::vector<std::string> characters;
  for (const char c : squeezed) {
    const bool goes_on = (static_cast<unsigned char>(c) & 0xc0) == 0x80;  // of UTF-8
    if (goes_on && !characters.empty())
      characters.back() += c;
    else
      characters.emplace_back(1, c);
  }
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

AnswerScore answer_score(const std::string& answer, const std::vector<std::string>& truths) {
  if (truths.empty())
    throw Error(ErrorCode::invalid_argument, "evaluation", "a question has no true answer");
  AnswerScore best;
  for (const std::string& truth : truths) {
    const AnswerScore score = answer_score(answer, truth);
    best.exact = std::max(best.exact, score.exact);
    best.f1 = std::max(best.f1, score.f1);
  }
  return best;
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
