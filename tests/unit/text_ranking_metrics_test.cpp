#include <cmath>

#include <gtest/gtest.h>

#include "ringlet/eval/ranking_metrics.h"
#include "ringlet/eval/text_metrics.h"
#include "tests/expect_error.h"

namespace ringlet::eval {
namespace {

using Texts = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

TEST(EditDistance, CountsInsertionsDeletionsAndReplacements) {
  EXPECT_EQ(edit_distance({}, {}), 0);
  EXPECT_EQ(edit_distance({"a"}, {}), 1);
  EXPECT_EQ(edit_distance({}, {"a", "b"}), 2);
  EXPECT_EQ(edit_distance({"k", "i", "t", "t", "e", "n"}, {"s", "i", "t", "t", "i", "n", "g"}), 3);
  EXPECT_EQ(edit_distance({"a", "b"}, {"b", "a"}), 2);  // a swap is no single edit
}

TEST(ErrorRates, AreOfAllTextsTogether) {
  EXPECT_DOUBLE_EQ(word_error_rate({"a b c", "d"}, {"a x c", "e"}), 2.0 / 4.0);
  EXPECT_DOUBLE_EQ(word_error_rate({"one two three"}, {"one"}), 2.0);  // more than all words
  EXPECT_DOUBLE_EQ(word_error_rate({"a"}, {"A"}), 1.0);                // case is told apart
  EXPECT_DOUBLE_EQ(word_error_rate({"", "b"}, {"", "b"}), 0.0);
}

TEST(ErrorRates, CharactersAreCodePoints) {
  EXPECT_DOUBLE_EQ(character_error_rate({"köln"}, {"koln"}), 1.0 / 4.0);
  EXPECT_DOUBLE_EQ(character_error_rate({"日本"}, {"日木"}), 1.0 / 2.0);
  EXPECT_DOUBLE_EQ(character_error_rate({"  a\t b "}, {"a b"}), 0.0);
}

TEST(ErrorRates, TextsThatAreNoUtf8AreComparedNonetheless) {
  EXPECT_DOUBLE_EQ(character_error_rate({"\x80\xff"}, {"\x80\xff"}), 0.0);
  EXPECT_DOUBLE_EQ(answer_score("\xff", "\xff").exact, 1.0);
}

TEST(ErrorRates, WithoutTruthThereIsNone) {
  expect_error(ErrorCode::mismatch, "do not make pairs", [] { word_error_rate({"a"}, {}); });
  expect_error(ErrorCode::invalid_argument, "are empty", [] { word_error_rate({}, {}); });
  expect_error(ErrorCode::invalid_argument, "are empty", [] { word_error_rate({"a"}, {" "}); });
  expect_error(ErrorCode::invalid_argument, "are empty", [] { character_error_rate({"a"}, {""}); });
}

TEST(AnswerScore, TheBestOfSeveralTruthsCounts) {
  const AnswerScore score = answer_score("the red cat", Texts{"dog", "red", "a cat, red"});
  EXPECT_DOUBLE_EQ(score.exact, 0.0);
  EXPECT_DOUBLE_EQ(score.f1, 1.0);
  EXPECT_DOUBLE_EQ(answer_score("Red!", Texts{"dog", "red"}).exact, 1.0);
  expect_error(ErrorCode::invalid_argument, "no true answer", [] { answer_score("a", Texts{}); });
}

TEST(RankingScore, IsTheFormula) {
  const Numbers ranked = {5, 3, 9, 1, 7};
  const double at2 = 1.0 / std::log2(3.0), at4 = 1.0 / std::log2(5.0);
  const RankingScore score = ranking_score(ranked, Numbers{3, 1, 8}, 4);
  EXPECT_DOUBLE_EQ(score.recall, 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(score.ndcg, (at2 + at4) / (1.0 + at2 + 0.5));
  EXPECT_DOUBLE_EQ(ranking_score(ranked, Numbers{5}, 1).ndcg, 1.0);
  EXPECT_DOUBLE_EQ(ranking_score(ranked, Numbers{7}, 4).recall, 0.0);
}

TEST(RankingScore, APerfectRankingHasOne) {
  for (const std::int64_t k : {1, 2, 3, 10}) {
    const RankingScore score = ranking_score(Numbers{4, 2, 6, 0}, Numbers{6, 4, 2}, k);
    EXPECT_DOUBLE_EQ(score.recall, 1.0) << k;
    EXPECT_DOUBLE_EQ(score.ndcg, 1.0) << k;
  }
}

TEST(RankingScore, WhatIsThereTwiceCountsOnce) {
  const RankingScore score = ranking_score(Numbers{3, 3, 1}, Numbers{3, 3, 3}, 3);
  EXPECT_DOUBLE_EQ(score.recall, 1.0);
  EXPECT_DOUBLE_EQ(score.ndcg, 1.0);
}

TEST(RankingScore, NothingWantedIsAnError) {
  expect_error(ErrorCode::invalid_argument, "no relevant item",
               [] { ranking_score(Numbers{1}, Numbers{}, 1); });
  expect_error(ErrorCode::invalid_argument, "no relevant item",
               [] { ranking_score(Numbers{1}, Numbers{1}, 0); });
}

}  // namespace
}  // namespace ringlet::eval
