// What somebody will want besides what is known: lines {"user": …, "items": [names, …]}. Of the
// examples to measure on, every third item is to be found from the others.
#include <algorithm>
#include <array>
#include <map>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/eval/ranking_metrics.h"
#include "ringlet/models/recommend/recommender.h"
#include "ringlet/nn/device.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"
#include "ringlet/tune/text_examples.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

struct Basket {
  std::vector<std::int64_t> items;
  std::int64_t user = -1;  ///< matrix factorisation: the row of the users' table
};

/// Numbers of names, from a file with one a line.
std::map<std::string, std::int64_t> read_names(const fs::path& file) {
  std::map<std::string, std::int64_t> numbers;
  if (!fs::exists(file))
    throw Error(ErrorCode::not_found, file.string(), "the names are missing",
                "one per line, in the order of the embeddings");
  for (const std::string& line : read_text_lines(file))
    numbers.emplace(line, static_cast<std::int64_t>(numbers.size()));
  return numbers;
}

class Recommendation final : public ExampleTask {
 public:
  Recommendation(const TaskOptions& options, const train::RunOptions& run)
      : ExampleTask(options, run),
        config_(models::RecommenderConfig::from_json(
            read_config(options, "two-tower, matrix-factorisation"),
            (options.model / "config.json").string())),
        items_(read_names(options.model / "items.txt")),
        users_(factorised() ? read_names(options.model / "users.txt")
                            : std::map<std::string, std::int64_t>{}),
        examples_(read_split<Basket>(options, [&](const fs::path& file) { return read(file); })),
        device_(options.weights.device),
        files_(folder_files(options.model, std::array{"config.json", "items.txt", "users.txt"})) {
    if (static_cast<std::int64_t>(items_.size()) > config_.items)
      throw Error(ErrorCode::mismatch, (options.model / "items.txt").string(),
                  "has more names than config.json has items");
    const nn::WeightSource source(FolderWeights(options, "", Json::object()).store(),
                                  options.weights);
    recommender_.emplace(source, config_);
    network_ = source.finish();
  }

  std::string description() const override {
    return std::string(factorised() ? "matrix factorisation" : "two towers") + ", " +
           std::to_string(items_.size()) + " items";
  }
  /// Tables as well: T turns all embeddings alike, which a few examples can teach.
  std::vector<std::string> usual_targets() const override { return {"model.*"}; }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  /// Cross entropy of the items that a third of a basket holds, given the others (or the user): the
  /// multinomial likelihood of Liang et al. 2018. Which third changes with the batch's order alone.
  at::Tensor loss_of(std::span<const std::size_t> rows) const override {
    std::vector<Parts> parts;
    for (std::size_t i = 0; i < rows.size(); ++i)
      parts.push_back(split(examples_.train[rows[i]], rows[i] + i));
    const at::Tensor shares =
        at::log_softmax(recommender_->scores(recommender_->users(known(parts))).to(at::kFloat), 1);
    at::Tensor sum;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const at::Tensor of_row =
          shares[static_cast<std::int64_t>(i)].index_select(0, numbers(parts[i].wanted)).mean();
      sum = sum.defined() ? sum + of_row : of_row;
    }
    return -sum / static_cast<double>(parts.size());
  }

  /// What is held back of an example depends on its place in the batch.
  bool is_mean() const override { return false; }

  std::vector<Score> evaluate() const override {
    constexpr std::size_t kBatch = 64;
    constexpr std::int64_t kPlaces = 10;
    eval::RankingScore sum;
    in_batches(
        examples_.held_out.size(), at_a_time(kBatch), [&](const std::vector<std::size_t>& rows) {
          std::vector<Parts> parts;
          for (const std::size_t row : rows) parts.push_back(split(examples_.held_out[row], 0));
          const at::Tensor all =
              recommender_->scores(recommender_->users(known(parts))).to(at::kCPU);
          for (std::size_t i = 0; i < parts.size(); ++i) {
            at::Tensor scores = all[static_cast<std::int64_t>(i)].clone();
            for (const std::int64_t item : parts[i].known) scores[item] = -1e30;
            const at::Tensor best = std::get<1>(scores.topk(std::min(kPlaces, scores.size(0))));
            const std::span ranked(best.const_data_ptr<std::int64_t>(),
                                   static_cast<std::size_t>(best.numel()));
            const eval::RankingScore score = eval::ranking_score(ranked, parts[i].wanted, kPlaces);
            sum.recall += score.recall;
            sum.ndcg += score.ndcg;
          }
        });
    const auto count = static_cast<double>(examples_.held_out.size());
    return {{"recall@10", true, sum.recall / count}, {"NDCG@10", true, sum.ndcg / count}};
  }

  std::map<std::string, std::string> model_files() const override { return files_; }

 private:
  /// A basket as what is known of it and what is to be found.
  struct Parts {
    std::vector<std::int64_t> known, wanted;
    std::int64_t user = -1;
  };

  bool factorised() const {
    return config_.kind == models::RecommenderConfig::Kind::matrix_factorisation;
  }

  /// Items that the network does not know are left out, and baskets with fewer than two.
  std::vector<Basket> read(const fs::path& file) const {
    std::vector<Basket> baskets;
    for (const JsonLine& line : read_json_lines(file)) {
      Basket basket;
      const auto names = json_require<std::vector<std::string>>(line.json, "items", line.where);
      for (const std::string& name : names)
        if (const auto found = items_.find(name); found != items_.end())
          basket.items.push_back(found->second);
      if (factorised()) {
        const auto user = users_.find(json_require<std::string>(line.json, "user", line.where));
        if (user == users_.end())
          throw Error(ErrorCode::invalid_argument, line.where,
                      "the user is not in the model's users.txt");
        basket.user = user->second;
      }
      if (basket.items.size() >= 2) baskets.push_back(std::move(basket));
    }
    return baskets;
  }

  static Parts split(const Basket& basket, std::size_t turn) {
    constexpr std::size_t kEvery = 3;
    Parts parts{{}, {}, basket.user};
    for (std::size_t i = 0; i < basket.items.size(); ++i)
      ((i + turn) % kEvery == 1 ? parts.wanted : parts.known).push_back(basket.items[i]);
    if (parts.wanted.empty()) {  // two items, and the turn has met neither
      parts.wanted.push_back(parts.known.back());
      parts.known.pop_back();
    }
    return parts;
  }

  at::Tensor numbers(const std::vector<std::int64_t>& list) const {
    return nn::to_device(at::tensor(list, at::kLong), device_);
  }

  /// What the users' side looks up.
  at::Tensor known(const std::vector<Parts>& parts) const {
    if (factorised()) {
      std::vector<std::int64_t> users;
      for (const Parts& one : parts) users.push_back(one.user);
      return numbers(users);
    }
    std::size_t longest = 1;
    for (const Parts& one : parts) longest = std::max(longest, one.known.size());
    at::Tensor ids =
        at::full({static_cast<std::int64_t>(parts.size()), static_cast<std::int64_t>(longest)}, -1,
                 at::kLong);
    for (std::size_t row = 0; row < parts.size(); ++row)
      std::ranges::copy(parts[row].known, ids.data_ptr<std::int64_t>() + row * longest);
    return nn::to_device(ids, device_);
  }

  models::RecommenderConfig config_;
  std::map<std::string, std::int64_t> items_, users_;
  Split<Basket> examples_;
  at::Device device_;
  std::map<std::string, std::string> files_;
  std::optional<models::Recommender> recommender_;
};

}  // namespace

std::unique_ptr<train::Task> recommendation(const TaskOptions& options,
                                            const train::RunOptions& run) {
  return std::make_unique<Recommendation>(options, run);
}

}  // namespace ringlet::tune
