// CLIP text encoder (Radford et al. 2021, "Learning Transferable Visual Models From Natural
// Language Supervision"): CLIPTextModel and CLIPTextModelWithProjection of transformers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct ClipTextConfig {
  std::int64_t vocab_size = 49408;
  std::int64_t hidden_size = 512;
  std::int64_t intermediate_size = 2048;
  std::int64_t projection_dim = 512;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 8;
  std::int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";
  double layer_norm_eps = 1e-5;
  std::int64_t eos_token_id = 49407;
  bool with_projection = false;  ///< architecture CLIPTextModelWithProjection

  /// Reads a text_encoder/config.json. Throws Error(bad_format | unsupported).
  static ClipTextConfig from_json(const Json& json, const std::string& where);

  /// The text side of a whole CLIP's config.json ("text_config"), with its projection.
  static ClipTextConfig from_clip_json(const Json& json, const std::string& where);
};

struct ClipTextOutput {
  std::vector<at::Tensor> hidden_states;  ///< embeddings, then each layer's output, [B, T, hidden]
  at::Tensor last_hidden_state;           ///< final_layer_norm of the last one, [B, T, hidden]
  at::Tensor pooled;  ///< last_hidden_state at the end-of-text token, projected if the model has a
                      ///< projection, [B, hidden or projection_dim]
};

class ClipTextModel {
 public:
  ClipTextModel(const nn::WeightSource& source, const ClipTextConfig& config);

  /// ids [B, T] int64, T <= max_position_embeddings.
  ClipTextOutput forward(const at::Tensor& ids) const;

  /// The final layer norm, for clip skip: applied to an earlier hidden state.
  at::Tensor final_layer_norm(const at::Tensor& hidden) const { return final_layer_norm_(hidden); }

  /// Appends rows [n, hidden] to the token embeddings (textual inversion) and returns the first
  /// one's id.
  std::int64_t add_tokens(const at::Tensor& rows);

  const ClipTextConfig& config() const { return config_; }

 private:
  struct EncoderLayer {
    EncoderLayer(const nn::WeightSource& source, const ClipTextConfig& config);
    at::Tensor forward(const at::Tensor& x) const;

    std::int64_t heads;
    std::string activation;
    nn::LayerNorm layer_norm1, layer_norm2;
    nn::Linear q_proj, k_proj, v_proj, out_proj;
    nn::Linear fc1, fc2;
  };

  at::Tensor end_of_text_positions(const at::Tensor& ids) const;

  ClipTextConfig config_;
  nn::Embedding token_embedding_, position_embedding_;
  std::vector<EncoderLayer> layers_;
  nn::LayerNorm final_layer_norm_;
  std::optional<nn::Linear> text_projection_;
};

}  // namespace ringlet::models
