#include "ringlet/pipeline/generation.h"

#include <algorithm>
#include <array>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/diffusion/guidance.h"
#include "ringlet/diffusion/kept_picture.h"
#include "ringlet/diffusion/noise.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::pipeline {
namespace {

[[noreturn]] void invalid(const Field& where, const std::string& what,
                          const std::string& hint = {}) {
  throw Error(ErrorCode::invalid_argument, where, what, hint);
}

void check_side(const Field& option, std::int64_t pixels, const TextToImageModel& model) {
  const std::int64_t unit = model.size_unit();
  if (pixels < unit || pixels % unit != 0) {
    const std::int64_t near = std::max(unit, (pixels + unit / 2) / unit * unit);
    invalid(option, std::to_string(pixels) + " is not a multiple of " + std::to_string(unit),
            "try " + std::to_string(near));
  }
  if (pixels > model.largest_side())
    invalid(option, std::to_string(pixels) + " pixels are too many",
            "the largest side is " + std::to_string(model.largest_side()));
}

/// Given start noise says what size the pictures have.
void check_latents(const TextToImageModel& model, GenerateRequest& request) {
  const at::Tensor& latents = request.latents;
  const std::int64_t unit = model.size_unit();
  const std::int64_t channels = model.latent_shape({unit, unit}).front();
  if (latents.dim() != 4 || latents.size(1) != channels) {
    const std::string divisor = std::to_string(model.picture_size({channels, 1, 1}).width);
    throw Error(ErrorCode::mismatch, Field("latents"),
                "the tensor must have the shape [images, " + std::to_string(channels) +
                    ", height / " + divisor + ", width / " + divisor + "]");
  }
  if (latents.size(0) != static_cast<std::int64_t>(request.seeds.size()))
    throw Error(ErrorCode::mismatch, Field("latents"),
                "the tensor holds " + std::to_string(latents.size(0)) + " images, but " +
                    std::to_string(request.seeds.size()) + " are asked for");
  const PictureSize made = model.picture_size(latents.sizes());
  const auto fits = [](std::int64_t& pixels, std::int64_t own, const Field& option) {
    if (pixels == 0) pixels = own;
    if (pixels != own)
      throw Error(ErrorCode::mismatch, option,
                  std::to_string(pixels) + " does not fit the given latents, which make " +
                      std::to_string(own));
  };
  fits(request.size.height, made.height, Field("height"));
  fits(request.size.width, made.width, Field("width"));
}

/// Pictures that the request starts from or looks at.
void check_pictures(const TextToImageModel& model, const GenerateRequest& request) {
  if (request.mask_image && !model.inpaints() && !model.inpaints_latents())
    invalid(Field("mask_image"), "the model is not an inpainting model",
            "use a model whose U-Net has 9 input channels");
  if (request.mask_image && !request.init_image)
    invalid(Field("mask_image"), "a mask needs the picture that it belongs to",
            "give `init_image`");
  if (request.control_image && request.control == nullptr)
    invalid(Field("control_image"), "nothing uses it",
            "give an adapter that was trained with `control`, or `controlnet=FOLDER`");
  if (request.control != nullptr && !request.control_image)
    invalid(Field("control_image"), "the control network needs a control picture");
  if (request.control != nullptr && model.inpaints())
    invalid(Field("control_image"), "inpainting models do not support control networks");
}

/// Which scale is which depends on the model.
void check_guidance(const TextToImageModel& model, const GenerateRequest& request) {
  if (request.true_guidance && !model.guidance_is_distilled())
    invalid(Field("true_guidance"), "this model is not told a guidance scale, it has one kind only",
            "give `guidance`");
  const bool told = model.embeds_guidance() || !model.guidance_is_distilled();
  if (!told && request.guidance.value_or(1.0) != 1.0)
    invalid(Field("guidance"),
            model.description().kind + " was distilled without guidance, and is told no scale",
            "leave it out; `true_guidance` is the scale of classifier-free guidance");
}

/// Image-to-image starts in the middle; inpainting models see their picture at every step.
bool starts_from_picture(const TextToImageModel& model, const GenerateRequest& request) {
  return request.init_image && !(request.mask_image && model.inpaints());
}

std::int64_t rows_of(const GenerateRequest& request) {
  return static_cast<std::int64_t>(request.seeds.size());
}

at::Tensor fitted(const io::Image& image, const GenerateRequest& request) {
  return image_to_tensor(io::resize_and_crop(image, request.size));
}

/// A draw from the posterior of each seed.
at::Tensor encode_picture(const TextToImageModel& model, const at::Tensor& pixels,
                          const GenerateRequest& request, const char* stream) {
  const at::Device device = model.options().device;
  const LatentPosterior posterior = model.encode(pixels.to(device));
  return posterior.sample(diffusion::seeded_noise(
      request.seeds, stream, posterior.mean.sizes().slice(1).vec(), device)(0));
}

/// [1, 1, H, W]: 1 where the picture is to be made.
at::Tensor mask_of(const GenerateRequest& request) {
  return fitted(*request.mask_image, request).mean(1, /*keepdim=*/true).ge(0.0).to(at::kFloat);
}

/// Mask and masked picture's latents, which inpainting models take beside the latents. Without a
/// mask the whole picture is new.
std::pair<at::Tensor, at::Tensor> masked_picture(const TextToImageModel& model,
                                                 const GenerateRequest& request) {
  const auto [width, height] = request.size;
  at::Tensor pixels = at::zeros({1, 3, height, width});
  at::Tensor mask = at::ones({1, 1, height, width});
  if (request.mask_image) {
    mask = mask_of(request);
    pixels = fitted(*request.init_image, request) * (1.0 - mask);
  }
  return {mask.expand({rows_of(request), 1, height, width}),
          encode_picture(model, pixels, request, "masked image")};
}

void warn_of_cut_prompts(const TextToImageModel& model, const GenerateRequest& request,
                         bool guided) {
  std::vector<std::string> prompts = {request.prompt};
  if (guided && request.negative_prompt) prompts.push_back(*request.negative_prompt);
  for (const CutPrompt& cut : model.newly_cut(prompts))
    log(LogLevel::warning, "the prompt is too long for the model's " + std::to_string(cut.limit) +
                               " tokens; this part is ignored: \"" + cut.cut + "\"");
}

/// Conditions of the whole batch; with guidance the negative prompt's come first.
Conditions request_conditions(const TextToImageModel& model, const GenerateRequest& request,
                              bool guided) {
  warn_of_cut_prompts(model, request, guided);
  const std::array frame = {PictureFrame{request.size, 0, 0, request.size}};
  const Conditions positive = model.encode_prompts(std::array{request.prompt}, request.clip_skip);
  std::vector<Conditions> halves;
  if (guided)
    halves.push_back(
        request.negative_prompt
            ? model.encode_prompts(std::array{*request.negative_prompt}, request.clip_skip)
            : model.without_prompt(positive, request.clip_skip));
  halves.push_back(positive);
  for (Conditions& half : halves) {
    model.add_sizes(half, frame);
    model.add_guidance(half, *request.guidance);
    half = half.repeated(rows_of(request));
  }
  if (model.inpaints()) {
    const auto [mask, picture] = masked_picture(model, request);
    for (Conditions& half : halves) model.add_masked_picture(half, mask, picture);
  }
  return Conditions::concatenate(halves);
}

diffusion::Denoiser denoiser(const TextToImageModel& model, const GenerateRequest& request) {
  const diffusion::Guidance guidance{classifier_free_scale(model, request),
                                     request.guidance_rescale};
  const bool guided = guidance.scale > 1.0;
  const Conditions conditions = request_conditions(model, request, guided);
  at::Tensor picture;
  if (request.control)
    picture = model.control_view(*request.control, control_tensor(io::resize_and_crop(
                                                       *request.control_image, request.size)));
  diffusion::Denoiser network = [&model, conditions, picture, network = request.control,
                                 strength = request.control_strength](
                                    const at::Tensor& x, const diffusion::NoiseLevel& level) {
    const at::Tensor timestep = at::full({1}, level.timestep, x.options().dtype(at::kFloat));
    if (network == nullptr) return model.predict(x, timestep, conditions);
    const ControlInput control{*network, picture, strength};
    return model.predict(x, timestep, conditions, &control);
  };
  return guided ? diffusion::classifier_free_guidance(std::move(network), guidance) : network;
}

/// What sampling starts from, and what of a picture it keeps.
struct SamplingStart {
  at::Tensor x;
  std::optional<diffusion::KeptPicture> kept = std::nullopt;
};

/// The mask at the latents' size by nearest neighbours, as diffusers brings it there.
at::Tensor latent_mask(const TextToImageModel& model, const GenerateRequest& request,
                       const at::Tensor& latents) {
  const std::int64_t unit = request.size.width / latents.size(3);
  return mask_of(request)
      .slice(2, 0, std::nullopt, unit)
      .slice(3, 0, std::nullopt, unit)
      .to(model.options().device);
}

SamplingStart start(const TextToImageModel& model, const GenerateRequest& request,
                    const diffusion::SamplingSteps& path) {
  const at::Device device = model.options().device;
  const at::Tensor noise =
      request.latents.defined()
          ? request.latents.to(device, at::kFloat)
          : diffusion::seeded_noise(request.seeds, "latents", model.latent_shape(request.size),
                                    device)(0);
  if (!starts_from_picture(model, request)) return {noise * path.initial_sigma};
  const at::Tensor picture =
      encode_picture(model, fitted(*request.init_image, request), request, "init image");
  SamplingStart begin{diffusion::add_noise(picture, noise, path.steps[path.start].from)};
  if (request.mask_image)
    begin.kept = diffusion::KeptPicture{picture, noise, latent_mask(model, request, picture)};
  return begin;
}

at::Tensor sample_checked(const TextToImageModel& model, const GenerateRequest& request,
                          const diffusion::StepCallback& callback) {
  const at::NoGradGuard no_grad;
  const diffusion::SamplingSteps path = sampling_steps(model, request);
  const SamplingStart begin = start(model, request, path);
  const diffusion::NoiseSource noise = diffusion::seeded_noise(
      request.seeds, "sampler", begin.x.sizes().slice(1).vec(), model.options().device);
  const diffusion::Sampler walk = request.sampler.entry->sample;
  if (!begin.kept) return walk(denoiser(model, request), begin.x, path, noise, callback);
  const auto whole = [&](const at::Tensor& x, std::size_t step) {
    return diffusion::with_kept(*begin.kept, x, path.steps[step - 1].to);
  };
  const auto report = [&](const diffusion::SamplerStep& step) -> bool {
    if (!callback) return true;
    const at::Tensor shown = whole(step.latents, step.step);
    return callback({step.step, step.count, shown});
  };
  const at::Tensor made =
      walk(diffusion::keeping(denoiser(model, request), *begin.kept, path.process), begin.x, path,
           noise, report);
  return whole(made, path.steps.size());
}

std::vector<io::Image> decode_finite(const TextToImageModel& model, const at::Tensor& latents) {
  const at::NoGradGuard no_grad;
  const at::Tensor pixels = model.decode(latents);
  if (!pixels.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, "autoencoder", "the image holds NaN or infinite values",
                "use `precision=fp32`");
  std::vector<io::Image> images;
  for (const at::Tensor& image : pixels.unbind()) images.push_back(tensor_to_image(image));
  return images;
}

}  // namespace

double classifier_free_scale(const TextToImageModel& model, const GenerateRequest& request) {
  constexpr double kOff = 1.0;
  if (model.guidance_is_distilled()) return request.true_guidance.value_or(kOff);
  return request.guidance.value_or(model.defaults().guidance);
}

GenerateRequest checked(const TextToImageModel& model, GenerateRequest request) {
  const ModelDefaults defaults = model.defaults();
  if (request.latents.defined()) check_latents(model, request);
  if (request.size.width == 0) request.size.width = defaults.size.width;
  if (request.size.height == 0) request.size.height = defaults.size.height;
  check_side(Field("width"), request.size.width, model);
  check_side(Field("height"), request.size.height, model);
  check_pictures(model, request);
  if (request.seeds.empty()) invalid(Field("images"), "must be at least 1");
  if (request.clip_skip < 1) invalid(Field("clip_skip"), "must be at least 1 (the last layer)");
  check_guidance(model, request);
  if (!request.steps) request.steps = defaults.steps;
  if (!request.guidance) request.guidance = defaults.guidance;
  if (request.sampler.entry == nullptr) {
    const std::optional<diffusion::Spacing> spacing = request.sampler.spacing;
    request.sampler = defaults.sampler;
    request.sampler.spacing = spacing;
  }
  sampling_steps(model, request);  // checks the number of steps
  return request;
}

diffusion::SamplingSteps sampling_steps(const TextToImageModel& model,
                                        const GenerateRequest& request) {
  diffusion::SamplingSteps path =
      request.sampler.steps(model.noise_process(), *request.steps, request.size);
  path.eta = request.eta;
  if (request.init_image) {
    const std::size_t middle =
        diffusion::start_for_strength(*path.process, *request.steps, request.strength);
    if (starts_from_picture(model, request)) path.start = middle;
  }
  return path;
}

at::Tensor sample(const TextToImageModel& model, const GenerateRequest& request,
                  const diffusion::StepCallback& callback) {
  return nn::with_ringlet_errors(
      "sampling", [&] { return sample_checked(model, checked(model, request), callback); });
}

std::vector<io::Image> decode_images(const TextToImageModel& model, const at::Tensor& latents) {
  return nn::with_ringlet_errors("autoencoder", [&] { return decode_finite(model, latents); });
}

std::vector<io::Image> generate(const TextToImageModel& model, const GenerateRequest& request,
                                const diffusion::StepCallback& callback) {
  std::vector<io::Image> images;
  for (const at::Tensor& latent : sample(model, request, callback).split(1))
    images.push_back(std::move(decode_images(model, latent).front()));
  return images;
}

}  // namespace ringlet::pipeline
