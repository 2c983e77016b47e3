// GPT-2 (Radford et al. 2019): a language model that reads from left to right, with a cache of keys
// and values for writing. Tensor names are those of the published checkpoints, with or without
// "transformer." before them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/core/random.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct Gpt2Config {
  std::int64_t vocabulary = 50257;
  std::int64_t width = 768;
  std::int64_t layers = 12;
  std::int64_t heads = 12;
  std::int64_t inner_width = 3072;
  std::int64_t positions = 1024;
  double epsilon = 1e-5;

  /// Reads a config.json whose model_type is gpt2. Throws Error(bad_format | unsupported).
  static Gpt2Config from_json(const Json& json, const std::string& where);
};

/// Keys and values of what has been read, per layer [B, T, width].
struct Gpt2Cache {
  std::vector<std::pair<at::Tensor, at::Tensor>> layers;
  std::int64_t length() const { return layers.empty() ? 0 : layers.front().first.size(1); }
};

/// How the next token is drawn.
struct WriteOptions {
  std::int64_t tokens = 50;
  double temperature = 1.0;  ///< 0 = always the likeliest
  std::int64_t top_k = 0;    ///< among so many likeliest; 0 = all
  double top_p = 1.0;        ///< among the likeliest that make up this share (Holtzman et al. 2020)
  std::int64_t end_id = -1;  ///< stops there
};

/// Whether a checkpoint stores the weight of the layer of this dotted name as [in, out]: that is
/// what transformers' Conv1D does, which only GPT-2's layers are.
bool gpt2_stores_transposed(std::string_view layer);

class Gpt2 {
 public:
  Gpt2(const nn::WeightSource& source, const Gpt2Config& config);

  /// ids int64 [B, T] -> scores of each next token [B, T, vocabulary]. With a cache the ids follow
  /// what it holds, and are added to it. Throws Error(invalid_argument) for more than `positions`.
  at::Tensor forward(const at::Tensor& ids, Gpt2Cache* cache = nullptr) const;

  /// What comes after `ids` [1, T], without them. Throws as forward.
  std::vector<std::int64_t> write(const at::Tensor& ids, const WriteOptions& options,
                                  RandomStream random) const;

  const Gpt2Config& config() const { return config_; }

 private:
  struct Block {
    Block(const nn::WeightSource& source, const Gpt2Config& config);
    at::Tensor forward(const at::Tensor& x, std::pair<at::Tensor, at::Tensor>* cache) const;

    std::int64_t heads;
    nn::LayerNorm norm1;
    nn::TransposedLinear query_key_value, attended;
    nn::LayerNorm norm2;
    nn::TransposedLinear inner, outer;
  };

  Gpt2Config config_;
  nn::EmbeddingTable words_, positions_;
  std::vector<Block> blocks_;
  nn::LayerNorm last_norm_;
};

}  // namespace ringlet::models
