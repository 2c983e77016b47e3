#include "ringlet/models/text/gpt2.h"

#include <algorithm>
#include <array>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

nn::WeightSource gpt2_top(const nn::WeightSource& source) { return source.at("transformer"); }

/// The token where a draw from [0, 1) falls among the likeliest ones that are let in.
std::int64_t draw(const at::Tensor& scores, const WriteOptions& options, double where) {
  if (options.temperature <= 0.0) return scores.argmax().item<std::int64_t>();
  const auto [shares, order] =
      at::softmax(scores.to(at::kDouble) / options.temperature, 0).sort(0, /*descending=*/true);
  const std::int64_t most =
      options.top_k > 0 ? std::min(options.top_k, shares.size(0)) : shares.size(0);
  double sum = 0.0;
  std::int64_t count = 0;
  while (count < most && (count == 0 || sum < options.top_p)) sum += shares[count++].item<double>();
  double place = where * sum;
  for (std::int64_t i = 0; i < count; ++i) {
    place -= shares[i].item<double>();
    if (place < 0.0) return order[i].item<std::int64_t>();
  }
  return order[count - 1].item<std::int64_t>();
}

}  // namespace

Gpt2Config Gpt2Config::from_json(const Json& json, const std::string& where) {
  const std::string type = required_network_type(json, where);
  if (type != "gpt2")
    throw Error(ErrorCode::unsupported, where, "model_type \"" + type + "\" is not known",
                "texts are continued by gpt2");
  Gpt2Config c;
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  c.vocabulary = number("vocab_size", c.vocabulary);
  c.width = number("n_embd", c.width);
  c.layers = number("n_layer", c.layers);
  c.heads = number("n_head", c.heads);
  c.inner_width = number("n_inner", 4 * c.width);
  c.positions = number("n_positions", c.positions);
  c.epsilon = json_value(json, "layer_norm_epsilon", c.epsilon, where);
  const auto activation = json_value<std::string>(json, "activation_function", "gelu_new", where);
  if (activation != "gelu_new" || !json_value(json, "scale_attn_weights", true, where) ||
      json_value(json, "scale_attn_by_inverse_layer_idx", false, where))
    throw Error(ErrorCode::unsupported, where, "another attention or activation than GPT-2's",
                "ringlet reads \"gelu_new\" with scaled attention");
  if (c.width % c.heads != 0)
    throw Error(ErrorCode::bad_format, where, "n_embd must be a multiple of n_head");
  return c;
}

bool gpt2_stores_transposed(std::string_view layer) {
  constexpr std::array kNames = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"};
  return std::ranges::any_of(kNames, [&](const char* name) { return layer.ends_with(name); });
}

Gpt2::Block::Block(const nn::WeightSource& s, const Gpt2Config& c)
    : heads(c.heads),
      norm1(s.at("ln_1"), c.width, c.epsilon),
      query_key_value(s.at("attn.c_attn"), c.width, 3 * c.width),
      attended(s.at("attn.c_proj"), c.width, c.width),
      norm2(s.at("ln_2"), c.width, c.epsilon),
      inner(s.at("mlp.c_fc"), c.width, c.inner_width),
      outer(s.at("mlp.c_proj"), c.inner_width, c.width) {}

at::Tensor Gpt2::Block::forward(const at::Tensor& x,
                                std::pair<at::Tensor, at::Tensor>* cache) const {
  const auto parts = query_key_value(norm1(x)).chunk(3, -1);
  at::Tensor key = parts[1], value = parts[2];
  std::int64_t before = 0;
  if (cache != nullptr) {
    if (cache->first.defined()) {
      before = cache->first.size(1);
      key = at::cat({cache->first, key}, 1);
      value = at::cat({cache->second, value}, 1);
    }
    *cache = {key, value};
  }
  // The newest of several follow each other; one alone sees all.
  at::Tensor seen;
  if (before > 0 && x.size(1) > 1)
    seen = at::ones({x.size(1), key.size(1)}, x.options().dtype(at::kBool)).tril(before);
  const at::Tensor mixed =
      nn::multi_head_attention(parts[0], key, value, heads, /*causal=*/before == 0, seen);
  const at::Tensor y = x + attended(mixed);
  return y + outer(at::gelu(inner(norm2(y)), "tanh"));
}

Gpt2::Gpt2(const nn::WeightSource& source, const Gpt2Config& c)
    : config_(c),
      words_(gpt2_top(source).at("wte"), c.vocabulary, c.width),
      positions_(gpt2_top(source).at("wpe"), c.positions, c.width, 0.01),
      last_norm_(gpt2_top(source).at("ln_f"), c.width, c.epsilon) {
  const nn::WeightSource blocks = gpt2_top(source).at("h");
  for (std::int64_t i = 0; i < c.layers; ++i) blocks_.emplace_back(blocks.at(i), c);
}

at::Tensor Gpt2::forward(const at::Tensor& ids, Gpt2Cache* cache) const {
  const std::int64_t before = cache != nullptr ? cache->length() : 0;
  if (before + ids.size(1) > config_.positions)
    throw Error(ErrorCode::invalid_argument, "gpt2",
                "a text of " + std::to_string(before + ids.size(1)) + " tokens; " +
                    std::to_string(config_.positions) + " are the limit");
  if (cache != nullptr && cache->layers.empty()) cache->layers.resize(blocks_.size());
  at::Tensor x = words_(ids) + positions_(at::arange(before, before + ids.size(1), ids.options()));
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    x = blocks_[i].forward(x, cache != nullptr ? &cache->layers[i] : nullptr);
  return at::matmul(last_norm_(x), words_.table().t());
}

std::vector<std::int64_t> Gpt2::write(const at::Tensor& ids, const WriteOptions& options,
                                      RandomStream random) const {
  const at::NoGradGuard no_grad;
  Gpt2Cache cache;
  std::vector<std::int64_t> written;
  at::Tensor next = ids;
  while (static_cast<std::int64_t>(written.size()) < options.tokens) {
    const at::Tensor scores = forward(next, &cache)[0][-1];
    const std::int64_t id = draw(scores.to(at::kCPU), options, random.uniform());
    if (id == options.end_id) break;
    written.push_back(id);
    next = at::tensor({id}, at::kLong).view({1, 1}).to(ids.device());
  }
  return written;
}

}  // namespace ringlet::models
