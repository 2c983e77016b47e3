// How well texts are read, answered and written down.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ringlet::eval {

/// An answer beside the true one, as SQuAD compares them (Rajpurkar et al. 2016): in lower case,
/// without punctuation (ASCII), the articles a, an, the, and extra white space.
struct AnswerScore {
  double exact = 0.0;  ///< 1 when nothing differs
  double f1 = 0.0;     ///< of the words that both have
};
AnswerScore answer_score(const std::string& answer, const std::string& truth);

/// Insertions, deletions and replacements between two sequences (Levenshtein 1966).
std::int64_t edit_distance(const std::vector<std::string>& a, const std::vector<std::string>& b);

/// Words of a text, split at white space.
std::vector<std::string> words_of(const std::string& text);

/// Edits of words over all pairs, divided by the true words: the word error rate of a set. Throws
/// Error(mismatch) for other numbers of texts, and Error(invalid_argument) without true words.
double word_error_rate(const std::vector<std::string>& said, const std::vector<std::string>& truth);

/// The same of characters (code points are bytes here: for texts of ASCII letters).
double character_error_rate(const std::vector<std::string>& said,
                            const std::vector<std::string>& truth);

}  // namespace ringlet::eval
