// Pairs of sentences that mean the same, or how nearly: lines {"sentence1": …, "sentence2": …,
// "score": …}.
#include <algorithm>
#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/eval/correlation.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/sentences.h"
#include "ringlet/tune/tasks.h"

namespace ringlet::tune {
namespace {

struct Pair {
  std::string where;
  std::string first, second;
  std::optional<double> score;
  tokenizers::EncodedText encoded_first = {}, encoded_second = {};
};

/// Data sets of sentence-transformers call the texts of a pair sentence1 and sentence2, or anchor
/// and positive.
std::vector<Pair> read_pairs(const std::filesystem::path& file) {
  std::vector<Pair> pairs;
  for (const JsonLine& line : read_json_lines(file)) {
    const bool anchored = line.json.contains("anchor");
    const auto text = [&](const char* name) {
      return json_require<std::string>(line.json, name, line.where);
    };
    Pair one{line.where, text(anchored ? "anchor" : "sentence1"),
             text(anchored ? "positive" : "sentence2"), std::nullopt};
    if (line.json.contains("score"))
      one.score = json_require<double>(line.json, "score", line.where);
    if (!pairs.empty() && pairs.front().score.has_value() != one.score.has_value())
      throw Error(ErrorCode::bad_format, line.where,
                  one.score ? "has a score, and earlier lines have none"
                            : "has no score, and earlier lines have one",
                  "give all pairs of a file a score, or none");
    pairs.push_back(std::move(one));
  }
  return pairs;
}

class SentenceSimilarity final : public ExampleTask {
 public:
  SentenceSimilarity(const TaskOptions& options, const train::RunOptions& run)
      : ExampleTask(options, run),
        network_of_texts_(options),
        pairs_(read_split<Pair>(options, read_pairs)) {
    regression_ = wants_regression(options);
    for (auto* part : {&pairs_.train, &pairs_.held_out})
      for (Pair& one : *part) {
        one.encoded_first = network_of_texts_.encode(one.first);
        one.encoded_second = network_of_texts_.encode(one.second);
      }
    network_ = network_of_texts_.index();
  }

  std::string description() const override {
    return std::string(network_of_texts_.config().name()) + ", sentences, " +
           (regression_ ? "regression" : "contrastive");
  }
  std::size_t size_of(std::size_t row) const override {
    return std::max(pairs_.train[row].encoded_first.ids.size(),
                    pairs_.train[row].encoded_second.ids.size());
  }
  std::vector<std::string> usual_targets() const override { return {"model.encoder.layer.*"}; }
  std::size_t examples() const override { return pairs_.train.size(); }
  std::size_t held_out() const override { return pairs_.held_out.size(); }

  /// The mean squared difference of cosine and score, or the ranking loss.
  at::Tensor loss_of(std::span<const std::size_t> rows) const override {
    const auto [first, second] = vectors(pairs_.train, rows);
    if (!regression_) return models::ranking_loss(first, second);
    std::vector<double> scores;
    for (const std::size_t row : rows) scores.push_back(*pairs_.train[row].score);
    const at::Tensor cosines = (first * second).sum(1).to(at::kFloat);
    return at::mse_loss(cosines, at::tensor(scores).to(cosines.options()));
  }

  /// The ranking loss compares with all texts of the batch.
  bool is_mean() const override { return regression_; }

  /// Correlations of cosine and score, or how well each first text finds its second one among all.
  std::vector<Score> evaluate() const override {
    constexpr std::size_t kBatch = 64;
    std::vector<at::Tensor> first, second;
    in_batches(held_out(), at_a_time(kBatch), [&](const std::vector<std::size_t>& rows) {
      const auto [a, b] = vectors(pairs_.held_out, rows);
      first.push_back(a);
      second.push_back(b);
    });
    const at::Tensor a = at::cat(first).to(at::kCPU, at::kFloat);
    const at::Tensor b = at::cat(second).to(at::kCPU, at::kFloat);
    return pairs_.held_out.front().score ? correlations(a, b) : retrieval(a, b);
  }

  std::map<std::string, std::string> model_files() const override {
    return network_of_texts_.files();
  }

 private:
  bool wants_regression(const TaskOptions& options) const {
    const bool scored = pairs_.train.front().score.has_value();
    if (options.loss == "regression" && !scored)
      throw Error(ErrorCode::invalid_argument, pairs_.train.front().where, "has no score to learn",
                  "regression learns scores; contrastive learns from pairs alone");
    if (options.loss == "contrastive" && scored)
      throw Error(ErrorCode::invalid_argument, pairs_.train.front().where,
                  "has a score, and contrastive treats every pair as matching",
                  "keep the matching pairs without their scores, or use regression");
    for (const Pair& one : pairs_.train)
      if (one.score && !(std::abs(*one.score) <= 1.0))
        throw Error(ErrorCode::bad_format, one.where, "the score does not lie between -1 and 1",
                    "scores are learnt as cosines: divide those from 0 to 5 by 5");
    const auto differs = [&](const Pair& one) {
      return one.score != pairs_.held_out.front().score;
    };
    if (pairs_.held_out.front().score && std::ranges::none_of(pairs_.held_out, differs))
      throw Error(ErrorCode::invalid_argument, pairs_.held_out.front().where,
                  "all held-out pairs have the same score, so no correlation is defined",
                  "give `eval_data` with different scores");
    return scored;
  }

  std::pair<at::Tensor, at::Tensor> vectors(const std::vector<Pair>& all,
                                            std::span<const std::size_t> rows) const {
    std::vector<const tokenizers::EncodedText*> first, second;
    for (const std::size_t row : rows) {
      first.push_back(&all[row].encoded_first);
      second.push_back(&all[row].encoded_second);
    }
    return {network_of_texts_.vectors(first), network_of_texts_.vectors(second)};
  }

  std::vector<Score> correlations(const at::Tensor& a, const at::Tensor& b) const {
    const at::Tensor rows = (a * b).sum(1).to(at::kDouble).contiguous();
    std::vector<double> scores;
    for (const Pair& one : pairs_.held_out) scores.push_back(*one.score);
    const std::span<const double> cosines(rows.const_data_ptr<double>(), scores.size());
    if (scores.size() < 2)
      throw Error(ErrorCode::invalid_argument, Field("eval_data"),
                  "one pair is too few to correlate");
    return {{"Spearman correlation", true, eval::spearman(cosines, scores)},
            {"Pearson correlation", true, eval::pearson(cosines, scores)}};
  }

  /// Pairs whose second text is the same count as one: any of them is a hit.
  std::vector<Score> retrieval(const at::Tensor& a, const at::Tensor& b) const {
    const at::Tensor order = std::get<1>(at::matmul(a, b.t()).sort(1, /*descending=*/true));
    double first = 0.0, reciprocal = 0.0;
    for (std::size_t row = 0; row < held_out(); ++row) {
      const at::Tensor ranked = order[static_cast<std::int64_t>(row)].contiguous();
      const std::int64_t* const columns = ranked.const_data_ptr<std::int64_t>();
      std::int64_t place = 0;
      while (pairs_.held_out[static_cast<std::size_t>(columns[place])].second !=
             pairs_.held_out[row].second)
        ++place;
      first += place == 0 ? 1.0 : 0.0;
      reciprocal += 1.0 / static_cast<double>(place + 1);
    }
    const auto count = static_cast<double>(held_out());
    return {{"retrieval accuracy", true, first / count},
            {"mean reciprocal rank", true, reciprocal / count}};
  }

  SentenceNetwork network_of_texts_;
  Split<Pair> pairs_;
  bool regression_ = false;
};

}  // namespace

std::unique_ptr<train::Task> sentence_similarity(const TaskOptions& options,
                                                 const train::RunOptions& run) {
  return std::make_unique<SentenceSimilarity>(options, run);
}

}  // namespace ringlet::tune
