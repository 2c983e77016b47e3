#include "ringlet/pipeline/stable_diffusion/text_conditioning.h"

#include <utility>

namespace ringlet::pipeline {

TextConditions encode_prompts(const std::vector<TextStage>& stages,
                              std::span<const std::string> prompts, std::int64_t clip_skip,
                              at::Device device) {
  if (stages.size() == 1) {
    const models::ClipTextOutput out = run(stages.front(), prompts, device);
    const at::Tensor& last = from_end(out, clip_skip);
    return {clip_skip == 1 ? out.last_hidden_state : stages.front().encoder.final_layer_norm(last),
            {}};
  }
  PooledText text = run_both(stages, prompts, clip_skip, device);
  return {std::move(text.embeddings), text.pooled.back()};
}

}  // namespace ringlet::pipeline
