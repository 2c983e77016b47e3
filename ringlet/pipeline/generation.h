// Pictures from text, by any text-to-image model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/picture_size.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/samplers.h"
#include "ringlet/io/image.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

struct GenerateRequest {
  std::string prompt;
  std::optional<std::string> negative_prompt;  ///< none is not the same as "" for all models
  std::vector<std::uint64_t> seeds = {0};      ///< one image per seed, in one batch
  PictureSize size = {};                       ///< a side of 0 = the model's own
  std::optional<std::int64_t> steps;           ///< none = the model's own, and so below
  diffusion::SamplerChoice sampler;
  std::optional<double> guidance;  ///< scale of classifier-free guidance; 1 = the prompt alone
  /// For distilled models (guidance_is_distilled): the scale of classifier-free guidance
  /// with a negative prompt; none = 1, the prompt alone.
  std::optional<double> true_guidance;
  double guidance_rescale = 0.0;  ///< share of it brought back to the prompt's deviation
  double eta = 0.0;               ///< DDIM only
  std::int64_t clip_skip = 1;
  at::Tensor latents;                   ///< start noise [B, channels, h, w], not the seeds'
  std::optional<io::Image> init_image;  ///< image-to-image
  std::optional<io::Image> mask_image;  ///< white parts of init_image are repainted
  double strength = 0.8;  ///< of image-to-image, in (0, 1]; inpainting models take none
  const ControlNetwork* control = nullptr;  ///< sees control_image; must outlive the request
  std::optional<io::Image> control_image;  ///< edges, a map, …; scaled and cropped to the picture
  double control_strength = 1.0;           ///< 0 = as without control
  std::string adapters;                    ///< "name:1, other:0.5", for the picture's text only
};

/// Checks sizes, steps, mask and latents of a request without computing anything, and fills in what
/// it leaves to the model: size, steps, sampler and guidance. Throws Error(invalid_argument |
/// mismatch).
GenerateRequest checked(const TextToImageModel& model, GenerateRequest request);

/// The scale of classifier-free guidance of a request, whose other fields may be missing.
double classifier_free_scale(const TextToImageModel& model, const GenerateRequest& request);

/// The steps of a checked request, in the order in which they are done.
diffusion::SamplingSteps sampling_steps(const TextToImageModel& model,
                                        const GenerateRequest& request);

/// Clean latents [B, channels, h, w] of a request, at the denoiser's scale. Throws as checked, and
/// Error(cancelled) when `callback` says no.
at::Tensor sample(const TextToImageModel& model, const GenerateRequest& request,
                  const diffusion::StepCallback& callback = {});

/// Latents to images. Throws Error(non_finite).
std::vector<io::Image> decode_images(const TextToImageModel& model, const at::Tensor& latents);

/// The images of a request: sample, then decode_images one by one, since decoding needs more memory
/// than a denoising step.
std::vector<io::Image> generate(const TextToImageModel& model, const GenerateRequest& request,
                                const diffusion::StepCallback& callback = {});

}  // namespace ringlet::pipeline
