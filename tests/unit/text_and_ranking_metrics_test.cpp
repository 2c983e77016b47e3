// Metrics of texts, answers and rankings on cases that are worked out by hand.
#include <cmath>

#include <gtest/gtest.h>

#include "ringlet/eval/ranking_metrics.h"
#include "ringlet/eval/text_metrics.h"
#include "tests/expect_error.h"

namespace ringlet::eval {
namespace {

TEST(AnswerScore, IgnoresCasePunctuationAndArticles) {
  EXPECT_EQ(answer_score("The Cat!", "a cat").exact, 1.0);
  const AnswerScore part = answer_score("the black cat", "cat on a mat");
  EXPECT_EQ(part.exact, 0.0);
  EXPECT_NEAR(part.f1, 2.0 * (1.0 / 2.0) * (1.0 / 3.0) / (1.0 / 2.0 + 1.0 / 3.0), 1e-12);
  EXPECT_EQ(answer_score("dog", "cat").f1, 0.0);
  EXPECT_EQ(answer_score("the", "a").f1, 1.0);  // nothing is left of both
  EXPECT_NEAR(answer_score("cat cat", "cat").f1, 2.0 / 3.0, 1e-12);
}

TEST(WordErrorRate, IsOfTheWholeSet) {
  EXPECT_NEAR(word_error_rate({"one two", "four"}, {"one three", "four five six"}), 3.0 / 5.0,
              1e-12);
  EXPECT_NEAR(character_error_rate({"abc"}, {"axc"}), 1.0 / 3.0, 1e-12);
  EXPECT_EQ(edit_distance({"k", "i", "t", "t", "e", "n"}, {"s", "i", "t", "t", "i", "n", "g"}), 3);
  EXPECT_EQ(edit_distance({}, {"a", "b"}), 2);
  expect_error(ErrorCode::mismatch, "do not make pairs", [] { word_error_rate({"a"}, {}); });
  expect_error(ErrorCode::invalid_argument, "empty", [] { word_error_rate({"a"}, {" "}); });
}

TEST(RankingScore, CountsPlaces) {
  const std::vector<std::int64_t> ranked = {7, 3, 9, 1}, wanted = {3, 1, 5};
  const RankingScore all = ranking_score(ranked, wanted, 4);
  EXPECT_NEAR(all.recall, 2.0 / 3.0, 1e-12);
  const double best = 1.0 + 1.0 / std::log2(3.0) + 0.5;
  EXPECT_NEAR(all.ndcg, (1.0 / std::log2(3.0) + 1.0 / std::log2(5.0)) / best, 1e-12);
  EXPECT_NEAR(ranking_score(ranked, wanted, 2).recall, 0.5, 1e-12);  // of the two that could be
  EXPECT_EQ(ranking_score({}, wanted, 2).ndcg, 0.0);
  expect_error(ErrorCode::invalid_argument, "nothing is wanted",
               [&] { ranking_score(ranked, {}, 2); });
}

}  // namespace
}  // namespace ringlet::eval
