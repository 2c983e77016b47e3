#include "ringlet/pipeline/stable_diffusion/stable_diffusion_control.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeights = "diffusion_pytorch_model";

/// What diffusers' ControlNetModel shares with its U-Net.
Json controlnet_config(const Json& unet, const std::vector<std::int64_t>& channels) {
  Json config = {{"_class_name", "ControlNetModel"},
                 {"conditioning_embedding_out_channels", channels},
                 {"controlnet_conditioning_channel_order", "rgb"}};
  for (const char* key : {"in_channels",
                          "flip_sin_to_cos",
                          "freq_shift",
                          "down_block_types",
                          "mid_block_type",
                          "only_cross_attention",
                          "block_out_channels",
                          "layers_per_block",
                          "downsample_padding",
                          "act_fn",
                          "norm_num_groups",
                          "norm_eps",
                          "cross_attention_dim",
                          "transformer_layers_per_block",
                          "attention_head_dim",
                          "use_linear_projection",
                          "addition_embed_type",
                          "addition_time_embed_dim",
                          "projection_class_embeddings_input_dim",
                          "upcast_attention"})
    if (unet.contains(key) && !unet[key].is_null()) config[key] = unet[key];
  return config;
}

/// Copies of what a ControlNet starts from; weights in codes as the U-Net computes with them.
std::map<std::string, at::Tensor> way_down(const nn::ModuleIndex& unet) {
  static constexpr std::array kParts = {"conv_in.", "time_embedding.", "add_embedding.",
                                        "down_blocks.", "mid_block."};
  const auto copied = [](const std::string& name) {
    return std::ranges::any_of(kParts, [&](const char* part) { return name.starts_with(part); });
  };
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : unet.tensors)
    if (copied(name)) tensors.emplace(name, tensor);
  for (const auto& [name, layer] : unet.layers)
    if (copied(name) && layer->stored_weight().coded())
      tensors.emplace(name + ".weight", layer->stored(layer->weight()));
  return tensors;
}

void check_fits(const models::ControlNetConfig& control, const models::UNetConfig& unet,
                const std::string& where) {
  const auto shape = [](const models::UNetConfig& c) {
    std::vector<std::int64_t> numbers = {c.in_channels};
    for (const models::UNetLevel& level : c.levels)
      numbers.insert(numbers.end(), {level.channels, level.layers, level.context_width});
    return numbers;
  };
  if (shape(control.unet) != shape(unet))
    throw Error(ErrorCode::mismatch, where, "the ControlNet was made for another kind of U-Net",
                "use one of the same generation: Stable Diffusion 1, 2 or XL");
}

}  // namespace

FirstLayer first_layer(const StableDiffusion& model) {
  constexpr std::int64_t kKernel = 3;
  return {.model = model.files().kind,
          .downscale = model.vae().config().downscale(),
          .latent_channels = model.vae().config().latent_channels,
          .kernel = kKernel,
          .stride = 1,
          .width = model.unet().config().levels.front().channels};
}

std::unique_ptr<UNetControl> UNetControl::create(const StableDiffusion& model, std::uint64_t seed) {
  const std::string where = model.files().path.string();
  Json config = controlnet_config(model.files().parts.at("unet").config,
                                  encoder_channels(model.vae().config().downscale(), where));
  const nn::WeightSource source(
      std::make_shared<ControlStart>(way_down(model.networks().at("unet").index), seed),
      {.device = model.options().device, .trainable = true});
  models::ControlNet network(source, models::ControlNetConfig::from_json(config, where));
  // Not make_unique: the constructor is private.
  return std::unique_ptr<UNetControl>(
      new UNetControl(std::move(network), source.finish(), std::move(config)));
}

std::unique_ptr<UNetControl> UNetControl::open(const fs::path& path, const StableDiffusion& model) {
  return nn::with_ringlet_errors(path.string(), [&] {
    const bool folder = fs::is_directory(path);
    if (!folder && !fs::is_regular_file(path))
      throw Error(ErrorCode::not_found, path.string(), "the ControlNet does not exist",
                  "give a folder with config.json and diffusion_pytorch_model.safetensors");
    const fs::path config_path = (folder ? path : path.parent_path()) / "config.json";
    Json config = read_json_file(config_path);
    const auto parsed = models::ControlNetConfig::from_json(config, config_path.string());
    check_fits(parsed, model.unet().config(), config_path.string());
    const auto store = nn::FileStore::open(folder ? find_weights(path, kWeights, "") : path);
    const LoadOptions& options = model.options();
    const nn::WeightSource source(
        store, {.dtype = options.precision,
                .device = options.device,
                .keep_storage_type = options.keeps_storage_type(options.precision)});
    models::ControlNet network(source, parsed);
    nn::ModuleIndex index = source.finish();
    index.pack(*store, options.weight_use());
    return std::unique_ptr<UNetControl>(
        new UNetControl(std::move(network), std::move(index), std::move(config)));
  });
}

models::UNetResiduals UNetControl::operator()(const at::Tensor& latents,
                                              const at::Tensor& timesteps, const at::Tensor& text,
                                              const models::AddedConditions* added,
                                              const at::Tensor& pictures, double strength) const {
  const auto type = index_.tensors.begin()->second.scalar_type();
  const auto in = [&](const at::Tensor& x) { return x.to(latents.device(), type); };
  const auto out = [&](const at::Tensor& x) { return x.to(latents.scalar_type()); };
  models::UNetResiduals residuals =
      network_.forward(in(latents), timesteps, in(text), in(pictures), strength, added);
  for (at::Tensor& skip : residuals.skips) skip = out(skip);
  residuals.middle = out(residuals.middle);
  return residuals;
}

void UNetControl::save(const fs::path& folder, at::ScalarType storage) const {
  make_folder(folder);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : index_.tensors) {
    const at::Tensor& stored = tensors.emplace(name, tensor.detach().to(storage)).first->second;
    if (!at::isfinite(stored).all().item<bool>())
      throw Error(ErrorCode::non_finite, name, "holds numbers that are not finite",
                  at::isfinite(tensor).all().item<bool>()
                      ? "they are too large for `save_precision=fp16`: use fp32 or bf16"
                      : "the training diverged; nothing was written");
  }
  io::save_tensors(folder / (std::string(kWeights) + ".safetensors"), tensors, {{"format", "pt"}});
  write_file_atomically(folder / "config.json", config_.dump(2) + "\n");
}

}  // namespace ringlet::pipeline
