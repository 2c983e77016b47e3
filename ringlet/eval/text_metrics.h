// How well texts are read, answered and written down.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ringlet::eval {

/// An answer beside the true one, as SQuAD 2.0's own program compares them (Rajpurkar et al. 2016,
/// 2018): in lower case, without ASCII punctuation, then without the words a, an, the, and without
/// extra white space. Two answers of which nothing is left are equal.
struct AnswerScore {
  double exact = 0.0;  ///< 1 when nothing differs
  double f1 = 0.0;     ///< of the words that both have
};
AnswerScore answer_score(const std::string& answer, const std::string& truth);

/// Where several answers are true: the best of each number. Throws Error(invalid_argument) without
/// any.
AnswerScore answer_score(const std::string& answer, const std::vector<std::string>& truths);

/// Insertions, deletions and replacements between two sequences (Levenshtein 1966).
std::int64_t edit_distance(const std::vector<std::string>& a, const std::vector<std::string>& b);

/// Words of a text, split at white space.
std::vector<std::string> words_of(const std::string& text);

/// Edits of words over all pairs, divided by the true words: the word error rate of a set. Throws
/// Error(mismatch) for other numbers of texts, and Error(invalid_argument) without true words.
double word_error_rate(const std::vector<std::string>& said, const std::vector<std::string>& truth);

/// The same of characters (code points), those between words counting as one space.
double character_error_rate(const std::vector<std::string>& said,
                            const std::vector<std::string>& truth);

}  // namespace ringlet::eval
