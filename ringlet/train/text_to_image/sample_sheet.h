// Sample pictures of a model from fixed prompts and seeds, so that they can be compared over time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/picture_size.h"
#include "ringlet/io/image.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/text_to_image/sample_prompts.h"

namespace ringlet::train {

struct SampleOptions {
  std::vector<std::string> prompts;
  std::filesystem::path prompts_file = {};   ///< more of them: see sample_prompts.h
  std::vector<SamplePrompt> from_file = {};  ///< what it holds, once it has been read
  std::int64_t images = 2;                   ///< per prompt, with the seeds seed, seed + 1, …
  std::uint64_t seed = 1;
  std::int64_t steps = 30;
  std::optional<double> guidance = {};  ///< none = the model's own
  PictureSize size = {};                ///< empty = the model's own
  std::int64_t clip_skip = 1;           ///< as in training: GenerateRequest has it
};

/// The prompts that were given, then those of the file.
std::vector<SamplePrompt> rows_of(const SampleOptions& options);

/// What a row of the sheet asks the model for. Throws as SamplePrompt::apply_to.
pipeline::GenerateRequest sample_request(const pipeline::TextToImageModel& model,
                                         const SampleOptions& options, const SamplePrompt& row);

/// A row per prompt, a column per seed. `proceed` is asked between denoising steps;
/// Error(cancelled) when it says no.
io::Image sample_sheet(const pipeline::TextToImageModel& model, const SampleOptions& options,
                       const std::function<bool()>& proceed = {});

}  // namespace ringlet::train
