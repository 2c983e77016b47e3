#include "ringlet/pipeline/text_stage.h"

#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/device.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "ringlet/tokenizers/t5_tokenizer.h"

namespace ringlet::pipeline {
namespace {

/// Ids [prompts, length] for a table of `vocabulary` words.
at::Tensor token_ids(const tokenizers::Tokenizer& tokenizer, std::span<const std::string> prompts,
                     std::int64_t length, std::int64_t vocabulary) {
  std::vector<at::Tensor> rows;
  for (const std::string& prompt : prompts) {
    const tokenizers::EncodedPrompt encoded = tokenizer.encode_prompt(prompt, length);
    if (*std::ranges::max_element(encoded.ids) >= vocabulary)
      throw Error(
          ErrorCode::mismatch, "tokenizer",
          "it has more tokens than the text encoder knows (" + std::to_string(vocabulary) + ")",
          "give the tokenizer that belongs to this model");
    rows.push_back(at::tensor(encoded.ids, at::kLong));
  }
  return at::stack(rows);
}

/// Text encoders of two kinds lie beside each other, in folders that differ by a number.
void check_kind(const ModelComponent& part, bool t5) {
  const auto kind = json_value<std::string>(part.config, "model_type", "", part.where);
  const bool is_t5 = part.config.contains("d_model") || kind == "t5";
  if (is_t5 != t5)
    throw Error(ErrorCode::mismatch, part.where,
                t5 ? "T5 is expected here, and this is a text encoder of CLIP's kind"
                   : "a text encoder of CLIP's kind is expected here, and this is T5",
                "the folders of the text encoders may be exchanged, or come from another model");
}

}  // namespace

TextStage open_clip(const nn::WeightSource& source, const ModelComponent& part,
                    const TokenizerFiles& tokenizer) {
  check_kind(part, /*t5=*/false);
  const auto config = models::ClipTextConfig::from_json(part.config, part.where);
  return {std::make_shared<tokenizers::ClipTokenizer>(
              tokenizers::ClipTokenizer::open(tokenizer.folder, tokenizer.pad_token)),
          models::ClipTextModel(source, config)};
}

T5Stage open_t5(const nn::WeightSource& source, const ModelComponent& part,
                const TokenizerFiles& tokenizer, std::int64_t length) {
  check_kind(part, /*t5=*/true);
  return {
      std::make_shared<tokenizers::T5Tokenizer>(tokenizers::T5Tokenizer::open(tokenizer.folder)),
      models::T5Encoder(source, models::T5Config::from_json(part.config, part.where)), length};
}

models::ClipTextOutput run(const TextStage& stage, std::span<const std::string> prompts,
                           at::Device device) {
  const models::ClipTextConfig& config = stage.encoder.config();
  return stage.encoder.forward(nn::to_device(
      token_ids(*stage.tokenizer, prompts, config.max_position_embeddings, config.vocab_size),
      device));
}

at::Tensor run(const T5Stage& stage, std::span<const std::string> prompts, at::Device device) {
  return stage.encoder.forward(nn::to_device(
      token_ids(*stage.tokenizer, prompts, stage.length, stage.encoder.config().vocabulary),
      device));
}

const at::Tensor& from_end(const models::ClipTextOutput& out, std::int64_t n) {
  const auto count = static_cast<std::int64_t>(out.hidden_states.size());
  if (n < 1 || n >= count)
    throw Error(ErrorCode::invalid_argument, Field("clip_skip"),
                std::to_string(n) + " is out of range: the text encoder has " +
                    std::to_string(count - 1) + " layers");
  return out.hidden_states[static_cast<std::size_t>(count - n)];
}

PooledText run_both(const std::vector<TextStage>& stages, std::span<const std::string> prompts,
                    std::int64_t clip_skip, at::Device device) {
  constexpr std::int64_t kLastButOne = 2;
  std::vector<at::Tensor> parts;
  PooledText text;
  for (const TextStage& stage : stages) {
    const models::ClipTextOutput out = run(stage, prompts, device);
    parts.push_back(from_end(out, std::max(kLastButOne, clip_skip)));
    text.pooled.push_back(out.pooled);
  }
  text.embeddings = at::cat(parts, -1);
  return text;
}

PromptTokens prompt_tokens(const tokenizers::Tokenizer& tokenizer, const std::string& prompt,
                           std::int64_t length) {
  PromptTokens found;
  found.limit = length;
  tokenizers::EncodedPrompt encoded = tokenizer.encode_prompt(prompt, length);
  found.used = encoded.used;
  found.total =
      encoded.cut.empty() ? encoded.used : static_cast<std::int64_t>(tokenizer.ids(prompt).size());
  found.cut = std::move(encoded.cut);
  return found;
}

}  // namespace ringlet::pipeline
