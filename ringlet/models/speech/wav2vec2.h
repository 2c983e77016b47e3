// wav2vec 2.0 with a CTC head (Baevski et al. 2020; Graves et al. 2006): speech to letters. Tensor
// names are those of transformers' Wav2Vec2ForCTC checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct Wav2Vec2Config {
  std::vector<std::int64_t> channels = std::vector<std::int64_t>(7, 512);  ///< of the convolutions
  std::vector<std::int64_t> kernels{10, 3, 3, 3, 3, 2, 2};
  std::vector<std::int64_t> strides{5, 2, 2, 2, 2, 2, 2};
  bool convolution_bias = false;
  bool layer_norms = false;  ///< a layer norm after every convolution, else one group norm (base)
  bool norm_first = false;   ///< "stable layer norm": before attention and feed-forward (large)
  std::int64_t width = 768;
  std::int64_t layers = 12;
  std::int64_t heads = 12;
  std::int64_t inner_width = 3072;
  std::int64_t position_kernel = 128;
  std::int64_t position_groups = 16;
  std::int64_t vocabulary = 32;
  std::int64_t blank = 0;  ///< CTC's empty token: the padding
  double epsilon = 1e-5;

  /// Reads a config.json whose model_type is wav2vec2. Throws Error(bad_format | unsupported).
  static Wav2Vec2Config from_json(const Json& json, const std::string& where);

  /// How many frames the convolutions make of so many samples; 0 = too few.
  std::int64_t frames(std::int64_t samples) const;
};

class Wav2Vec2 {
 public:
  Wav2Vec2(const nn::WeightSource& source, const Wav2Vec2Config& config);

  /// sound [B, samples], each of mean 0 and deviation 1 and filled up with zeros; their lengths ->
  /// scores of letters [B, frames, vocabulary]. Networks with layer norms do not look at the
  /// padding; those with a group norm were trained to. Throws Error(invalid_argument) for sounds
  /// that are too short, and for lengths that do not fit.
  at::Tensor forward(const at::Tensor& sound, const std::vector<std::int64_t>& lengths) const;

  const Wav2Vec2Config& config() const { return config_; }

 private:
  struct Convolution {
    at::Tensor weight, bias, norm_weight, norm_bias;
  };
  struct EncoderLayer {
    EncoderLayer(const nn::WeightSource& source, const Wav2Vec2Config& config);
    at::Tensor attended(const at::Tensor& x, const at::Tensor& seen) const;
    at::Tensor forward(const at::Tensor& x, const at::Tensor& seen) const;

    std::int64_t heads;
    bool norm_first;
    nn::Linear query, key, value, output;
    nn::LayerNorm norm;
    nn::Linear inner, outer;
    nn::LayerNorm last_norm;
  };

  void check(const at::Tensor& sound, const std::vector<std::int64_t>& lengths) const;
  at::Tensor seen_frames(const std::vector<std::int64_t>& lengths, std::int64_t T) const;
  at::Tensor heard(const at::Tensor& sound) const;
  at::Tensor positions(const at::Tensor& x) const;

  Wav2Vec2Config config_;
  at::ScalarType dtype_;  ///< compute type
  std::vector<Convolution> convolutions_;
  nn::LayerNorm projection_norm_;
  nn::Linear projection_;
  at::Tensor position_gain_, position_direction_, position_bias_;
  nn::LayerNorm encoder_norm_;
  std::vector<EncoderLayer> layers_;
  nn::Linear letters_;
};

/// Mean over texts of the CTC loss per letter, as transformers computes it with ctc_loss_reduction
/// "mean". `scores` [B, frames, vocabulary], `frames` and `letters` of each text. A text with more
/// letters than its frames can say counts as 0. Throws Error(invalid_argument) for counts that do
/// not fit and for letters outside the vocabulary or equal to the blank.
at::Tensor ctc_loss(const at::Tensor& scores, const std::vector<std::int64_t>& frames,
                    const std::vector<std::vector<std::int64_t>>& letters, std::int64_t blank);

/// The likeliest letter of every frame, repeats and blanks left out. `scores` [frames, vocabulary].
std::vector<std::int64_t> ctc_decode(const at::Tensor& scores, std::int64_t blank);

}  // namespace ringlet::models
