#include "ringlet/models/recommender.h"

#include <limits>

#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/log_sigmoid.h>
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

at::Tensor Recommender::scores(const at::Tensor& users, const at::Tensor& items) const {
  return at::matmul(users, items_(items).t()) + bias_.index_select(0, items);
}

at::Tensor personalised_ranking_loss(const at::Tensor& wanted, const at::Tensor& others) {
  if (wanted.dim() != 1 || others.dim() != 2 || wanted.size(0) != others.size(0))
    throw Error(ErrorCode::mismatch, "personalised ranking",
                "there are not as many wanted items as rows of others");
  return -at::log_sigmoid(wanted.unsqueeze(1) - others).mean();
}

at::Tensor sampled_softmax_loss(const at::Tensor& scores, const at::Tensor& items,
                                const at::Tensor& share) {
  const bool fits = scores.dim() == 2 && items.dim() == 1 && scores.size(1) == items.size(0) &&
                    scores.size(0) <= items.size(0);
  if (!fits || (share.defined() && share.sizes() != items.sizes()))
    throw Error(ErrorCode::mismatch, "sampled softmax",
                "scores want a column for each item, and the users' own items first");
  const at::Tensor users = at::arange(scores.size(0), items.options());
  const at::Tensor columns = at::arange(scores.size(1), items.options());
  const at::Tensor again = items.unsqueeze(0)
                               .eq(items.slice(0, 0, scores.size(0)).unsqueeze(1))
                               .logical_and(columns.unsqueeze(0).ne(users.unsqueeze(1)));
  const at::Tensor drawn = share.defined() ? scores - share : scores;
  return at::cross_entropy_loss(drawn.masked_fill(again, -std::numeric_limits<double>::infinity()),
                                users);
}

}  // namespace ringlet::models
