// Recommendation from implicit feedback: a tower that reads what somebody has, and one for each
// thing that could be added (Covington et al. 2016).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct RecommenderConfig {
  enum class Kind { two_tower, matrix_factorisation };

  Kind kind = Kind::two_tower;
  std::int64_t items = 0;
  std::int64_t users = 0;  ///< matrix factorisation: rows of the users' table
  std::int64_t width = 64;
  std::int64_t inner_width = 128;  ///< of the user's tower

  /// Reads a config.json whose model_type is two-tower or matrix-factorisation. Throws
  /// Error(bad_format | unsupported).
  static RecommenderConfig from_json(const Json& json, const std::string& where);
};

/// Scores of items are u . v + b: with u from the user's tower (the mean of the embeddings of what
/// the user has, then two linear layers), or a row of the users' table (Koren et al. 2009).
class Recommender {
 public:
  Recommender(const nn::WeightSource& source, const RecommenderConfig& config);

  /// Items that users have, int64 [B, H], -1 for none (two towers); or the users' numbers, int64
  /// [B] (matrix factorisation) -> u, [B, width].
  at::Tensor users(const at::Tensor& of) const;

  /// Scores of all items, [B, items].
  at::Tensor scores(const at::Tensor& users) const;

  const RecommenderConfig& config() const { return config_; }

 private:
  RecommenderConfig config_;
  nn::EmbeddingTable items_;
  at::Tensor bias_;
  std::vector<nn::EmbeddingTable> table_;  ///< what the users' side looks up: history, or users
  std::vector<nn::Linear> tower_;
};

}  // namespace ringlet::models
