#include "ringlet/pipeline/stable_diffusion/stable_diffusion_control.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>
#include <vector>

#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>

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

/// The start of a control network: tensors that the U-Net has as well are copies of its own, what
/// ends in the U-Net is zero, and the rest is random.
class StartStore final : public nn::TensorStore {
 public:
  StartStore(std::map<std::string, at::Tensor> copied, std::uint64_t seed)
      : copied_(std::move(copied)), random_(seed) {}

  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override {
    if (const auto own = copied_.find(name); own != copied_.end())
      return own->second.detach().clone();
    const bool last = name.starts_with("controlnet_down_blocks.") ||
                      name.starts_with("controlnet_mid_block.") ||
                      name.find("conv_out.") != std::string::npos;
    return last ? at::zeros(shape) : random_.find(name, shape, init);
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "a new control network"; }

 private:
  std::map<std::string, at::Tensor> copied_;
  nn::RandomStore random_;
};

/// Of the published encoder, for autoencoders that make pictures 2^n times smaller.
std::vector<std::int64_t> encoder_channels(std::int64_t downscale, const std::string& where) {
  constexpr std::array<std::int64_t, 4> kPublished = {16, 32, 96, 256};
  if (downscale < 2 || !std::has_single_bit(static_cast<std::uint64_t>(downscale)))
    throw Error(ErrorCode::invalid_argument, where,
                "its latents are " + std::to_string(downscale) + " times smaller than pictures",
                "control networks halve pictures: 2, 4, 8, … times");
  const auto halvings =
      static_cast<std::size_t>(std::countr_zero(static_cast<std::uint64_t>(downscale)));
  std::vector<std::int64_t> channels;
  for (std::size_t i = 0; i <= halvings; ++i)
    channels.push_back(kPublished[std::min(i, kPublished.size() - 1)]);
  return channels;
}

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

std::unique_ptr<UNetControl> UNetControl::made(std::unique_ptr<Network> network,
                                               const nn::WeightSource& source, Json config) {
  // Not make_unique: the constructor is private.
  return std::unique_ptr<UNetControl>(
      new UNetControl(std::move(network), source.finish(), std::move(config)));
}

std::unique_ptr<UNetControl> UNetControl::create(ControlKind kind, const StableDiffusion& model,
                                                 std::uint64_t seed) {
  const std::string where = model.files().path.string();
  if (model.files().inpainting)
    throw Error(ErrorCode::unsupported, where, "inpainting models do not support control networks");
  const auto channels = encoder_channels(model.vae().config().downscale(), where);
  const nn::WeightOptions options{.device = model.options().device, .trainable = true};
  if (kind == ControlKind::encoder) {
    const nn::WeightSource source(
        std::make_shared<StartStore>(std::map<std::string, at::Tensor>{}, seed), options);
    return made(std::make_unique<Network>(models::ControlEmbedding(
                    source, channels, model.unet().config().levels.front().channels)),
                source, {});
  }
  Json config = controlnet_config(model.files().parts.at("unet").config, channels);
  const nn::WeightSource source(
      std::make_shared<StartStore>(way_down(model.networks().at("unet").index), seed), options);
  auto network = std::make_unique<Network>(
      models::ControlNet(source, models::ControlNetConfig::from_json(config, where)));
  return made(std::move(network), source, std::move(config));
}

std::unique_ptr<UNetControl> UNetControl::from_tensors(
    const std::map<std::string, at::Tensor>& tensors, const StableDiffusion& model,
    const std::string& where) {
  std::vector<std::int64_t> channels;
  const auto add = [&](const std::string& name) {
    const auto found = tensors.find(name);
    if (found == tensors.end() || found->second.dim() != 4 || found->second.numel() == 0)
      return false;
    channels.push_back(found->second.size(0));
    return true;
  };
  if (!add("conv_in.weight"))
    throw Error(ErrorCode::mismatch, where, "its control encoder has no \"conv_in.weight\"",
                "the file is damaged");
  for (int block = 1; add("blocks." + std::to_string(block) + ".weight");) block += 2;
  const auto halvings = static_cast<std::int64_t>(channels.size()) - 1;
  if (std::int64_t{1} << halvings != model.vae().config().downscale())
    throw Error(ErrorCode::mismatch, where,
                "its control encoder halves pictures " + std::to_string(halvings) +
                    " times, which does not give this model's latents",
                "it was made for another model");
  const nn::WeightSource source(std::make_shared<nn::MapStore>(tensors, where),
                                {.device = model.options().device});
  return made(std::make_unique<Network>(models::ControlEmbedding(
                  source, channels, model.unet().config().levels.front().channels)),
              source, {});
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
    auto control = made(std::make_unique<Network>(models::ControlNet(source, parsed)), source,
                        std::move(config));
    control->index_.pack(*store, options.weight_use());
    return control;
  });
}

ControlKind UNetControl::kind() const {
  return std::holds_alternative<models::ControlNet>(*network_) ? ControlKind::controlnet
                                                               : ControlKind::encoder;
}

models::UNetResiduals UNetControl::operator()(const at::Tensor& latents,
                                              const at::Tensor& timesteps, const at::Tensor& text,
                                              const models::AddedConditions* added,
                                              const at::Tensor& pictures, double strength) const {
  const auto type = index_.tensors.begin()->second.scalar_type();
  const auto in = [&](const at::Tensor& x) { return x.to(latents.device(), type); };
  const auto out = [&](const at::Tensor& x) { return x.to(latents.scalar_type()); };
  models::UNetResiduals residuals;
  if (const auto* encoder = std::get_if<models::ControlEmbedding>(network_.get())) {
    residuals.conv_in = out(encoder->forward(in(pictures)) * strength);
    return residuals;
  }
  residuals = std::get<models::ControlNet>(*network_).forward(in(latents), timesteps, in(text),
                                                              in(pictures), strength, added);
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
