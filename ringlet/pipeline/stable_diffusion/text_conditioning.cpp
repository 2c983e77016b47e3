#include "ringlet/pipeline/stable_diffusion/text_conditioning.h"

#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/device.h"

namespace ringlet::pipeline {
namespace {

at::Tensor token_ids(const TextStage& stage, const std::string& prompt) {
  const std::int64_t length = stage.encoder.config().max_position_embeddings;
  const tokenizers::EncodedPrompt encoded = stage.tokenizer->encode_prompt(prompt, length);
  if (*std::ranges::max_element(encoded.ids) >= stage.encoder.config().vocab_size)
    throw Error(ErrorCode::mismatch, "tokenizer",
                "it has more tokens than the text encoder knows (" +
                    std::to_string(stage.encoder.config().vocab_size) + ")",
                "give the tokenizer that belongs to this model");
  return at::tensor(encoded.ids, at::kLong);
}

models::ClipTextOutput run(const TextStage& stage, std::span<const std::string> prompts,
                           at::Device device) {
  std::vector<at::Tensor> ids;
  for (const std::string& prompt : prompts) ids.push_back(token_ids(stage, prompt));
  return stage.encoder.forward(nn::to_device(at::stack(ids), device));
}

/// The n-th hidden state from the end, 1 = the last layer's.
const at::Tensor& from_end(const models::ClipTextOutput& out, std::int64_t n) {
  const auto count = static_cast<std::int64_t>(out.hidden_states.size());
  if (n < 1 || n >= count)
    throw Error(ErrorCode::invalid_argument, Field("clip_skip"),
                std::to_string(n) + " is out of range: the text encoder has " +
                    std::to_string(count - 1) + " layers");
  return out.hidden_states[static_cast<std::size_t>(count - n)];
}

}  // namespace

TextConditions encode_prompts(const std::vector<TextStage>& stages,
                              std::span<const std::string> prompts, std::int64_t clip_skip,
                              at::Device device) {
  if (stages.size() == 1) {
    const models::ClipTextOutput out = run(stages.front(), prompts, device);
    const at::Tensor& last = from_end(out, clip_skip);
    return {clip_skip == 1 ? out.last_hidden_state : stages.front().encoder.final_layer_norm(last),
            {}};
  }
  constexpr std::int64_t kXlLayer = 2;
  std::vector<at::Tensor> parts;
  at::Tensor pooled;
  for (const TextStage& stage : stages) {
    const models::ClipTextOutput out = run(stage, prompts, device);
    parts.push_back(from_end(out, std::max(kXlLayer, clip_skip)));
    pooled = out.pooled;
  }
  return {at::cat(parts, -1), pooled};
}

}  // namespace ringlet::pipeline
