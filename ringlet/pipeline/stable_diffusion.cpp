#include "ringlet/pipeline/stable_diffusion.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/diffusion/noise.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::pipeline {
namespace {

/// Weights of a network that is trained around but not itself, in fp32: all in that type but the
/// kernels of convolutions, which Layer::pack widens into its own layouts. A wide copy besides
/// would stand in memory unused.
class PackedKernelsStore final : public nn::TensorStore {
 public:
  explicit PackedKernelsStore(std::shared_ptr<const nn::TensorStore> store)
      : store_(std::move(store)) {}
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override {
    std::optional<at::Tensor> found = store_->find(name, shape, init);
    constexpr std::int64_t kKernelAxes = 4;
    if (found && found->dim() != kKernelAxes) found = found->to(at::kFloat);
    return found;
  }
  void release() const override { store_->release(); }
  std::vector<std::string> names() const override { return store_->names(); }
  std::string description() const override { return store_->description(); }

 private:
  std::shared_ptr<const nn::TensorStore> store_;
};

bool packs_kernels(const LoadOptions& options, const std::string& component) {
  return options.for_training && !options.low_memory && options.device.is_cpu() &&
         options.precision == at::kFloat && !options.trainable.contains(component);
}

std::shared_ptr<const nn::TensorStore> weights_for(
    const std::shared_ptr<const nn::TensorStore>& weights, const LoadOptions& options,
    const std::string& component) {
  if (!packs_kernels(options, component)) return weights;
  return std::make_shared<PackedKernelsStore>(weights);
}

nn::WeightOptions weight_options(const LoadOptions& options, const std::string& component) {
  // The autoencoder always in fp32: those of Stable Diffusion overflow in fp16, and they run once
  // per image.
  const bool trainable = options.trainable.contains(component);
  return {
      .dtype = component == "vae" || trainable ? at::kFloat : options.precision,
      .device = options.device,
      .keep_storage_type = (options.low_memory && !trainable) || packs_kernels(options, component),
      .trainable = trainable};
}

diffusion::Schedule load_schedule(const ModelFiles& files) {
  const auto config = diffusion::ScheduleConfig::from_json(files.scheduler, files.scheduler_where);
  if (config.zero_terminal_snr && config.prediction == diffusion::Prediction::epsilon)
    log(LogLevel::warning, files.scheduler_where +
                               ": the model is said to predict epsilon and to end in zero SNR, "
                               "where epsilon says nothing; `prediction` tells what it predicts");
  else if (config.zero_terminal_snr && config.spacing == diffusion::Spacing::leading)
    log(LogLevel::warning, files.scheduler_where +
                               ": the schedule ends in zero SNR, but the spacing \"leading\" "
                               "leaves its last level out; `spacing=trailing` starts there");
  return diffusion::Schedule(config);
}

TextStage load_text(const std::string& component, const ModelComponent& part,
                    const TokenizerFiles& tokenizer, const LoadOptions& options,
                    nn::ModuleIndex& index) {
  const nn::WeightSource source(part.weights, weight_options(options, component));
  const auto config = models::ClipTextConfig::from_json(part.config, part.where);
  TextStage stage{models::ClipTokenizer::open(tokenizer.folder, tokenizer.pad_token),
                  models::ClipTextModel(source, config)};
  index = source.finish();
  part.weights->release();  // what was widened is not read again
  return stage;
}

/// The parts of a folder may each fit their configuration and still come from different models.
void check_parts_fit(const ModelFiles& files, const models::UNetConfig& unet,
                     const std::vector<TextStage>& text, const models::VaeConfig& vae) {
  const auto mismatch = [&](const std::string& what) {
    throw Error(ErrorCode::mismatch, files.unet.where, what,
                "the parts come from different models");
  };
  if (unet.text_time != files.sdxl())
    mismatch(std::string("the U-Net ") + (unet.text_time ? "needs" : "does not take") +
             " a second text encoder");
  std::int64_t width = 0;
  for (const TextStage& stage : text) width += stage.encoder.config().hidden_size;
  for (const models::UNetLevel& level : unet.levels)
    if (level.context_width != width)
      mismatch("the U-Net takes text of width " + std::to_string(level.context_width) +
               ", but the text encoders give " + std::to_string(width));
  constexpr std::int64_t kSizeNumbers = 6;
  const std::int64_t pooled = text.back().encoder.config().projection_dim;
  if (unet.text_time &&
      unet.projection_input_dim != pooled + kSizeNumbers * unet.addition_time_embed_dim)
    mismatch("the U-Net does not take pooled text of width " + std::to_string(pooled));
  const std::int64_t in = files.inpainting ? 2 * vae.latent_channels + 1 : vae.latent_channels;
  if (unet.in_channels != in || unet.out_channels != vae.latent_channels)
    mismatch("the U-Net does not take latents of " + std::to_string(vae.latent_channels) +
             " channels");
}

[[noreturn]] void invalid(const Field& where, const std::string& what,
                          const std::string& hint = {}) {
  throw Error(ErrorCode::invalid_argument, where, what, hint);
}

void check_side(const Field& option, std::int64_t pixels, std::int64_t unit) {
  if (pixels < unit || pixels % unit != 0) {
    const std::int64_t near = std::max(unit, (pixels + unit / 2) / unit * unit);
    invalid(option, std::to_string(pixels) + " is not a multiple of " + std::to_string(unit),
            "try " + std::to_string(near));
  }
  constexpr std::int64_t kLargest = 8192;
  if (pixels > kLargest)
    invalid(option, std::to_string(pixels) + " pixels are too many",
            "the largest side is " + std::to_string(kLargest));
}

}  // namespace

StableDiffusion StableDiffusion::open(const std::filesystem::path& path,
                                      const LoadOptions& options) {
  return nn::with_ringlet_errors(
      path.string(), [&] { return StableDiffusion(find_model(path, options.files), options); });
}

struct StableDiffusion::ToldPrompts {
  bool is_new(const std::string& prompt) {
    const std::lock_guard lock(mutex);
    return prompts.insert(prompt).second;
  }
  std::mutex mutex;
  std::set<std::string> prompts;
};

StableDiffusion::StableDiffusion(ModelFiles files, const LoadOptions& options)
    : files_(std::move(files)),
      options_(options),
      schedule_(load_schedule(files_)),
      told_(std::make_shared<ToldPrompts>()) {
  text_.push_back(load_text("text_encoder", files_.text_encoder, files_.tokenizer, options,
                            indices_["text_encoder"]));
  if (files_.sdxl())
    text_.push_back(load_text("text_encoder_2", files_.text_encoder_2, files_.tokenizer_2, options,
                              indices_["text_encoder_2"]));

  const nn::WeightSource unet(weights_for(files_.unet.weights, options, "unet"),
                              weight_options(options, "unet"));
  unet_ = std::make_unique<models::UNet>(
      unet, models::UNetConfig::from_json(files_.unet.config, files_.unet.where));
  indices_["unet"] = unet.finish();
  files_.unet.weights->release();

  const auto vae_config = models::VaeConfig::from_json(files_.vae.config, files_.vae.where);
  const nn::WeightSource vae(weights_for(files_.vae.weights, options, "vae"),
                             weight_options(options, "vae"));
  vae_ = std::make_unique<models::AutoencoderKL>(vae, vae_config);
  indices_["vae"] = vae.finish();
  files_.vae.weights->release();
  check_parts_fit(files_, unet_->config(), text_, vae_config);

  if (options.low_memory) return;
  if (!options.trainable.contains("unet"))
    indices_["unet"].pack(*files_.unet.weights, options.for_training);
  if (!options.trainable.contains("vae")) indices_["vae"].pack(*files_.vae.weights);
}

diffusion::SamplerChoice StableDiffusion::default_sampler() const {
  return diffusion::default_sampler(schedule_.config());
}

GenerateRequest StableDiffusion::checked(GenerateRequest request) const {
  const std::int64_t unit = vae_->config().downscale();
  const std::int64_t own_size = unet_->config().sample_size * unit;
  if (request.latents.defined()) {
    const at::Tensor& latents = request.latents;
    if (latents.dim() != 4 || latents.size(1) != vae_->config().latent_channels)
      throw Error(ErrorCode::mismatch, Field("latents"),
                  "the tensor must have the shape [images, " +
                      std::to_string(vae_->config().latent_channels) + ", height / " +
                      std::to_string(unit) + ", width / " + std::to_string(unit) + "]");
    if (latents.size(0) != static_cast<std::int64_t>(request.seeds.size()))
      throw Error(ErrorCode::mismatch, Field("latents"),
                  "the tensor holds " + std::to_string(latents.size(0)) + " images, but " +
                      std::to_string(request.seeds.size()) + " are asked for");
    const auto fits = [&](std::int64_t& pixels, std::int64_t side, const Field& option) {
      if (pixels == 0) pixels = side * unit;
      if (pixels != side * unit)
        throw Error(ErrorCode::mismatch, option,
                    std::to_string(pixels) + " does not fit the given latents, which make " +
                        std::to_string(side * unit));
    };
    fits(request.size.height, latents.size(2), Field("height"));
    fits(request.size.width, latents.size(3), Field("width"));
  }
  if (request.size.width == 0) request.size.width = own_size;
  if (request.size.height == 0) request.size.height = own_size;
  check_side(Field("width"), request.size.width, unit);
  check_side(Field("height"), request.size.height, unit);
  if (request.mask_image && !files_.inpainting)
    invalid(Field("mask_image"), "the model is no inpainting model",
            "use a model whose U-Net has 9 input channels");
  if (request.mask_image && !request.init_image)
    invalid(Field("mask_image"), "a mask needs the picture that it belongs to",
            "give `init_image`");
  if (request.control_image && request.control == nullptr)
    invalid(Field("control_image"), "nothing looks at it",
            "give an adapter that was trained with `control`, or `controlnet=FOLDER`");
  if (request.control != nullptr && !request.control_image)
    invalid(Field("control_image"), "the control network needs a picture");
  if (request.control != nullptr && files_.inpainting)
    invalid(Field("control_image"), "inpainting models take no control network");
  if (request.seeds.empty()) invalid(Field("images"), "must be at least 1");
  if (request.clip_skip < 1) invalid(Field("clip_skip"), "must be at least 1 (the last layer)");
  if (request.sampler.entry == nullptr) {
    const std::optional<diffusion::Spacing> spacing = request.sampler.spacing;
    request.sampler = default_sampler();
    request.sampler.spacing = spacing;
  }
  request.sampler.plan(schedule_, request.steps);  // checks the number of steps
  if (request.init_image) diffusion::start_for_strength(request.steps, request.strength);
  return request;
}

TextConditions StableDiffusion::negative_conditions(const GenerateRequest& request,
                                                    const TextConditions& positive) const {
  if (!request.negative_prompt && files_.zero_empty_negative)
    return {at::zeros_like(positive.embeddings), at::zeros_like(positive.pooled)};
  return encode_prompts(text_, std::array{request.negative_prompt.value_or("")}, request.clip_skip,
                        options_.device);
}

std::vector<CutPrompt> StableDiffusion::newly_cut(std::span<const std::string> prompts) const {
  std::vector<CutPrompt> cut;
  for (const std::string& prompt : prompts) {
    auto found = cut_prompt(text_, prompt);
    if (found && told_->is_new(prompt)) cut.push_back(*std::move(found));
  }
  return cut;
}

StableDiffusion::Conditions StableDiffusion::conditions(const GenerateRequest& request,
                                                        bool guided) const {
  std::vector<std::string> prompts = {request.prompt};
  if (guided && request.negative_prompt) prompts.push_back(*request.negative_prompt);
  for (const CutPrompt& cut : newly_cut(prompts))
    log(LogLevel::warning, "the prompt is too long for the model's " + std::to_string(cut.limit) +
                               " tokens; this part is ignored: \"" + cut.cut + "\"");
  const auto batch = static_cast<std::int64_t>(request.seeds.size());
  const TextConditions positive =
      encode_prompts(text_, std::array{request.prompt}, request.clip_skip, options_.device);
  std::vector<TextConditions> rows;
  if (guided) rows.push_back(negative_conditions(request, positive));
  rows.push_back(positive);
  std::vector<at::Tensor> text, pooled;
  for (const TextConditions& row : rows) {
    text.push_back(row.embeddings.expand({batch, -1, -1}));
    if (files_.sdxl()) pooled.push_back(row.pooled.expand({batch, -1}));
  }
  Conditions out{at::cat(text), {}};
  if (files_.sdxl()) {
    out.added.pooled_text = at::cat(pooled);
    out.added.time_ids = models::size_conditions(request.size, 0, 0, request.size, options_.device)
                             .expand({out.text.size(0), -1});
  }
  return out;
}

at::Tensor StableDiffusion::encode_image(const at::Tensor& pixels, const GenerateRequest& request,
                                         const char* stream) const {
  const models::VaeOptions coding{.slicing = options_.low_memory, .tiling = options_.low_memory};
  const models::LatentDistribution posterior = vae_->encode(pixels.to(options_.device), coding);
  const at::Tensor noise = diffusion::seeded_noise(
      request.seeds, stream, posterior.mean.sizes().slice(1).vec(), options_.device)(0);
  return vae_->scale(posterior.sample(noise));
}

/// Mask and masked picture, which inpainting models take beside the latents. Without a mask the
/// whole picture is new.
at::Tensor StableDiffusion::inpainting_channels(const GenerateRequest& request) const {
  const std::int64_t unit = vae_->config().downscale();
  const auto batch = static_cast<std::int64_t>(request.seeds.size());
  const std::int64_t h = request.size.height / unit;
  const std::int64_t w = request.size.width / unit;
  at::Tensor pixels = at::zeros({1, 3, request.size.height, request.size.width});
  at::Tensor mask = at::ones({1, 1, request.size.height, request.size.width});
  if (request.mask_image) {
    const auto fitted = [&](const io::Image& image) {
      return image_to_tensor(io::resize_and_crop(image, request.size));
    };
    mask = fitted(*request.mask_image).mean(1, /*keepdim=*/true).ge(0.0).to(at::kFloat);
    pixels = fitted(*request.init_image) * (1.0 - mask);
  }
  // Nearest neighbour, as diffusers brings masks to the latents' size.
  const at::Tensor small = mask.slice(2, 0, std::nullopt, unit).slice(3, 0, std::nullopt, unit);
  return at::cat({small.to(options_.device).expand({batch, 1, h, w}),
                  encode_image(pixels, request, "masked image")},
                 1);
}

diffusion::Denoiser StableDiffusion::denoiser(const GenerateRequest& request) const {
  const bool guided = request.guidance.scale > 1.0;
  const Conditions condition = conditions(request, guided);
  at::Tensor extra;
  if (files_.inpainting) {
    extra = inpainting_channels(request);
    if (guided) extra = at::cat({extra, extra});
  }
  at::Tensor picture;
  if (request.control)
    picture = control_tensor(io::resize_and_crop(*request.control_image, request.size))
                  .to(options_.device);
  const ControlNetwork* const control = request.control;
  const double strength = request.control_strength;
  diffusion::Denoiser network = [=, this](const at::Tensor& x, const diffusion::NoiseLevel& level) {
    const at::Tensor input = extra.defined() ? at::cat({x, extra}, 1) : x;
    const at::Tensor timesteps =
        at::full({x.size(0)}, level.timestep, at::TensorOptions(at::kFloat).device(x.device()));
    const at::Tensor latents = input.to(options_.precision);
    models::UNetResiduals residuals;
    if (control)
      residuals =
          (*control)(latents, timesteps, condition.text, &condition.added, picture, strength);
    return unet_->forward(latents, timesteps, condition.text, &condition.added, &residuals)
        .to(at::kFloat);
  };
  return guided ? diffusion::classifier_free_guidance(std::move(network), request.guidance)
                : network;
}

at::Tensor StableDiffusion::start(const GenerateRequest& request,
                                  const diffusion::SamplingPlan& plan) const {
  const std::int64_t unit = vae_->config().downscale();
  const at::Tensor noise =
      request.latents.defined()
          ? request.latents.to(options_.device, at::kFloat)
          : diffusion::seeded_noise(request.seeds, "latents",
                                    {vae_->config().latent_channels, request.size.height / unit,
                                     request.size.width / unit},
                                    options_.device)(0);
  const bool painted_over = request.init_image && !request.mask_image;
  if (!painted_over) return noise * plan.initial_sigma;
  const io::Image fitted = io::resize_and_crop(*request.init_image, request.size);
  const at::Tensor picture = encode_image(image_to_tensor(fitted), request, "init image");
  return diffusion::add_noise(picture, noise, plan.steps[plan.start].from);
}

at::Tensor StableDiffusion::sample(const GenerateRequest& request,
                                   const diffusion::StepCallback& callback) const {
  return nn::with_ringlet_errors("sampling",
                                 [&] { return sample_checked(checked(request), callback); });
}

at::Tensor StableDiffusion::sample_checked(const GenerateRequest& request,
                                           const diffusion::StepCallback& callback) const {
  at::NoGradGuard no_grad;
  diffusion::SamplingPlan plan = request.sampler.plan(schedule_, request.steps);
  plan.eta = request.eta;
  if (request.init_image && !request.mask_image)
    plan.start = diffusion::start_for_strength(request.steps, request.strength);
  const at::Tensor x = start(request, plan);
  const diffusion::NoiseSource noise =
      diffusion::seeded_noise(request.seeds, "sampler", x.sizes().slice(1).vec(), options_.device);
  return request.sampler.entry->sample(denoiser(request), x, plan, noise, callback);
}

std::vector<io::Image> StableDiffusion::decode(const at::Tensor& latents) const {
  return nn::with_ringlet_errors("autoencoder", [&] { return decode_images(latents); });
}

std::vector<io::Image> StableDiffusion::decode_images(const at::Tensor& latents) const {
  at::NoGradGuard no_grad;
  const models::VaeOptions coding{.slicing = options_.low_memory, .tiling = options_.low_memory};
  const at::Tensor pixels =
      vae_->decode(vae_->unscale(latents.to(options_.device, at::kFloat)), coding);
  if (!pixels.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, "autoencoder", "the image holds NaN or infinite values",
                "use `precision=fp32`");
  std::vector<io::Image> images;
  for (const at::Tensor& image : pixels.unbind()) images.push_back(tensor_to_image(image));
  return images;
}

}  // namespace ringlet::pipeline
