// What pictures to make: one request to a model that is open, from the command line, from JSON or
// from C++.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/diffusion/sampler_table.h"

namespace ringlet::service {

/// Pictures and tensors are named by their files. The fields' names are those of the JSON, and with
/// dashes those of the command line.
struct PictureRequest {
  std::vector<std::string> prompts;            ///< "prompt" in JSON: a string, or a list of strings
  std::optional<std::string> negative_prompt;  ///< none is not the same as "" for SDXL
  std::int64_t images = 1;                     ///< per prompt, in [1, 10000]
  std::int64_t batch_size = 1;        ///< computed at a time, in [1, 1024]; changes no picture
  std::optional<std::uint64_t> seed;  ///< of the first image, the next has seed + 1; none = random
  std::int64_t width = 0;             ///< pixels; 0 = the model's own size
  std::int64_t height = 0;
  std::optional<std::int64_t> steps;    ///< in [1, 1000]; none = what suits the model
  diffusion::SamplerChoice sampler;     ///< "sampler" and "spacing"; none = the model's own
  std::optional<double> guidance;       ///< scale in [0, 1000]; none = what suits the model
  std::optional<double> true_guidance;  ///< in [0, 1000]; of models that are told `guidance`
  double guidance_rescale = 0.0;        ///< in [0, 1]
  double eta = 0.0;                     ///< of ddim, in [0, 1]
  std::int64_t clip_skip = 1;           ///< text encoder layer counted from the end
  std::filesystem::path init_image;
  std::optional<double> strength;    ///< denoising strength, 1 ignores init_image; none = 0.8
  std::filesystem::path mask_image;  ///< inpainting models and transformers: white is repainted
  std::filesystem::path latents;     ///< safetensors with "latents" [images, C, h, w]: start noise
  std::filesystem::path control_image;
  std::string control;  ///< "canny" or "segmentation" are made from control_image; "" = it is the
                        ///< signal
  data::CannyThresholds canny;             ///< "canny_low" and "canny_high", with control "canny"
  std::optional<double> control_strength;  ///< in [0, 2]; none = 1
};

/// The request's fields as options: their names, limits and help, for JSON and command lines.
void describe(OptionList& list, PictureRequest& request);

/// The limits above, and what goes together. Looks into no file. Throws Error(invalid_argument)
/// that names the field.
void check(const PictureRequest& request);

/// Reads and checks a request. Throws Error(invalid_argument) for unknown fields, with the nearest
/// name, for values of another type, and as check().
PictureRequest picture_request_from_json(const Json& json);

/// The request with all values but those that are not set; reading it gives the same request.
Json to_json(const PictureRequest& request);

}  // namespace ringlet::service
