#include "ringlet/models/recommend/recommender.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"

namespace ringlet::models {

RecommenderConfig RecommenderConfig::from_json(const Json& json, const std::string& where) {
  const auto type = json_require<std::string>(json, "model_type", where);
  RecommenderConfig c;
  if (type == "matrix-factorisation") {
    c.kind = Kind::matrix_factorisation;
  } else if (type != "two-tower") {
    throw Error(ErrorCode::unsupported, where, "model_type \"" + type + "\" is not known",
                "recommendations are made by two-tower and matrix-factorisation");
  }
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  c.items = number("items", 0);
  c.width = number("width", c.width);
  if (c.kind == Kind::matrix_factorisation)
    c.users = number("users", 0);
  else
    c.inner_width = number("inner_width", c.inner_width);
  return c;
}

Recommender::Recommender(const nn::WeightSource& source, const RecommenderConfig& c)
    : config_(c),
      items_(source.at("items"), c.items, c.width, 0.1),
      bias_(source.at("items").get("bias", {c.items}, nn::Init::constant(0.0))) {
  if (c.kind == RecommenderConfig::Kind::matrix_factorisation) {
    table_.emplace_back(source.at("users"), c.users, c.width, 0.1);
    return;
  }
  table_.emplace_back(source.at("history"), c.items, c.width, 0.1);
  tower_.emplace_back(source.at("tower").at(0), c.width, c.inner_width);
  tower_.emplace_back(source.at("tower").at(1), c.inner_width, c.width);
}

at::Tensor Recommender::users(const at::Tensor& of) const {
  if (tower_.empty()) return table_.front()(of);
  const at::Tensor there = of.ge(0).unsqueeze(-1);
  const at::Tensor rows = table_.front()(of.clamp_min(0)) * there;
  const at::Tensor mean = rows.sum(1) / there.sum(1).clamp_min(1);
  return tower_[1](at::relu(tower_[0](mean)));
}

at::Tensor Recommender::scores(const at::Tensor& users) const {
  return at::matmul(users, items_.table().t()) + bias_;
}

}  // namespace ringlet::models
