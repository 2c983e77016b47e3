// Files of sample prompts as sd-scripts reads them: a prompt per line with its own settings.
//
//   # a comment
//   a photo of sks dog on the beach --n blurry --w 768 --h 512 --d 7 --s 30 --l 7.5
//
// --n negative prompt, --w and --h size in pixels, --d seed, --s steps, --l scale of
// classifier-free guidance, --g guidance scale that a distilled model is told, --ss sampler. Sizes
// are rounded down to what the model can make, as there. An unknown flag is an error, not a part of
// the prompt.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/pipeline/generation.h"

namespace ringlet::train {

/// A row of a sheet. What it leaves out is as for all rows.
struct SamplePrompt {
  std::string text;
  std::optional<std::string> negative = {};
  std::optional<std::int64_t> width = {}, height = {}, steps = {};
  std::optional<std::uint64_t> seed = {};
  std::optional<double> guidance = {};       ///< of classifier-free guidance
  std::optional<double> told_guidance = {};  ///< that a distilled model is told
  diffusion::SamplerChoice sampler = {};     ///< none = the model's own
  std::string place = {};                    ///< "FILE:3", for messages

  /// Puts what the row has of its own into a request. Throws Error(invalid_argument) at the place
  /// for a scale that this model does not take.
  void apply_to(pipeline::GenerateRequest& request, const pipeline::TextToImageModel& model) const;
};

/// Reads one line without its end; `place` is for messages. Throws Error(bad_format) with the
/// nearest flag for one that is not known, and for values that are none.
SamplePrompt parse_sample_prompt(std::string_view line, const std::string& place);

/// The prompts of a file, without comments (#) and empty lines. Throws Error(bad_format) also for a
/// file without any, and as read_text_lines.
std::vector<SamplePrompt> read_sample_prompts(const std::filesystem::path& file);

}  // namespace ringlet::train
