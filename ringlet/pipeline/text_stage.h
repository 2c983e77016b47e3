// Text encoders with their tokenizers, from which families make the conditions of prompts.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/text/clip_text.h"
#include "ringlet/models/text/t5_encoder.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/pipeline/model_files.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/tokenizers/tokenizer.h"

namespace ringlet::pipeline {

/// A text encoder of CLIP's kind with its tokenizer.
struct TextStage {
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer;
  models::ClipTextModel encoder;
};

/// T5 with its tokenizer, and how many tokens it reads.
struct T5Stage {
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer;
  models::T5Encoder encoder;
  std::int64_t length;
};

/// Throw as the configurations, tokenizers and networks do.
TextStage open_clip(const nn::WeightSource& source, const ModelComponent& part,
                    const TokenizerFiles& tokenizer);
T5Stage open_t5(const nn::WeightSource& source, const ModelComponent& part,
                const TokenizerFiles& tokenizer, std::int64_t length);

/// All that an encoder makes of prompts. What is too long is cut silently: see
/// TextToImageModel::newly_cut. Throw Error(mismatch) for a tokenizer of another encoder.
models::ClipTextOutput run(const TextStage& stage, std::span<const std::string> prompts,
                           at::Device device);
at::Tensor run(const T5Stage& stage, std::span<const std::string> prompts, at::Device device);

/// The n-th hidden state from the end, 1 = the last layer's. Throws Error(invalid_argument).
const at::Tensor& from_end(const models::ClipTextOutput& out, std::int64_t n);

/// What several encoders of CLIP's kind make of prompts.
struct PooledText {
  at::Tensor embeddings;           ///< [prompts, tokens, all widths]
  std::vector<at::Tensor> pooled;  ///< [prompts, width] of each
};

/// As SDXL and Stable Diffusion 3 have it: the last layer but one of all encoders beside each
/// other, or with `clip_skip` n > 2 the n-th from the end.
PooledText run_both(const std::vector<TextStage>& stages, std::span<const std::string> prompts,
                    std::int64_t clip_skip, at::Device device);

/// How a prompt is read where `length` tokens are.
PromptTokens prompt_tokens(const tokenizers::Tokenizer& tokenizer, const std::string& prompt,
                           std::int64_t length);

}  // namespace ringlet::pipeline
