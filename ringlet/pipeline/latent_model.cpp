#include "ringlet/pipeline/latent_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "ringlet/core/log.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/pipeline/pass_memory.h"

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

}  // namespace

double bytes_of(double numbers, at::ScalarType type) {
  return numbers * static_cast<double>(c10::elementSize(type));
}

std::vector<StepBlock> in_bytes(std::vector<StepBlock> blocks, at::ScalarType type) {
  for (StepBlock& block : blocks)
    for (double* numbers : {&block.before, &block.inside, &block.passing})
      *numbers = bytes_of(*numbers, type);
  return blocks;
}

LatentModel::LatentModel(std::string denoiser, const LoadOptions& options,
                         std::shared_ptr<const diffusion::NoiseProcess> process,
                         const std::string& where)
    : denoiser_(std::move(denoiser)), options_(options), noise_process_(std::move(process)) {
  for (const std::string& warning : noise_process_->warnings())
    log(LogLevel::warning, std::string(where).append(": ").append(warning));
}

nn::WeightSource LatentModel::source_of(const ModelComponent& part,
                                        std::vector<std::string> wide_layers) const {
  const bool trainable = options_.trainable.contains(part.role);
  // The autoencoder always in fp32: those of Stable Diffusion overflow in fp16, and they run once
  // per image.
  const bool wide = part.role == NetworkRole::autoencoder || trainable;
  const at::ScalarType type = wide ? at::kFloat : options_.precision;
  const bool narrow = options_.keeps_storage_type(type) && !trainable;
  using nn::WeightStorage;
  const bool denoiser = part.role == NetworkRole::denoiser;
  const WeightStorage storage = denoiser ? options_.storage : WeightStorage::as_stored;
  // A training step reads the denoiser's matrices twice, and has less to compute with them.
  const bool for_step = options_.for_training && !options_.low_memory && denoiser;
  const bool wraps = narrow && (storage == WeightStorage::fp32 ||
                                (storage == WeightStorage::as_stored && for_step));
  return nn::WeightSource(wraps ? std::make_shared<PackedKernelsStore>(part.weights) : part.weights,
                          {.dtype = type,
                           .device = options_.device,
                           .keep_storage_type = narrow,
                           .trainable = trainable,
                           .at_home = !options_.device.is_cpu() && !trainable,
                           .storage = wraps ? WeightStorage::as_stored : storage,
                           .wide_layers = std::move(wide_layers)});
}

void LatentModel::add_network(const std::string& name, const ModelComponent& part,
                              const nn::WeightSource& source) {
  const nn::WeightOptions& options = source.options();
  ModelNetwork network{part.role, source.finish(), part.config};
  network.memory = std::make_shared<nn::NetworkMemory>(part.weights, options, network.index);
  networks_[name] = std::move(network);
  part.weights->release();  // what was widened is not read again
}

void LatentModel::open_autoencoder(const ModelComponent& part) {
  const nn::WeightSource source = source_of(part);
  vae_ = std::make_unique<models::AutoencoderKL>(
      source, models::VaeConfig::from_json(part.config, part.where));
  add_network("vae", part, source);
}

void LatentModel::finish_denoiser(const ModelComponent& part) {
  // The autoencoder computes as much with a kernel as its layout takes to make, and rests most of
  // the time: it stays in its file.
  if (!options_.trainable.contains(NetworkRole::denoiser))
    networks_.at(denoiser_).index.pack(*part.weights, options_.weight_use());
  memory_of(denoiser_).offload(options_.offload_layers.value_or(0));
}

nn::NetworkMemory& LatentModel::memory_of(const std::string& network) const {
  return *networks_.at(network).memory;
}

void LatentModel::rest(const std::string& network, IdleNetworks from) const {
  if (options_.device.is_cpu() || options_.idle_networks() >= from) memory_of(network).leave();
}

void LatentModel::enter_text_encoders() const {
  for (const auto& [name, network] : networks_)
    if (network.role == NetworkRole::text_encoder) network.memory->enter();
}

void LatentModel::rest_text_encoders() const {
  for (const auto& [name, network] : networks_)
    if (network.role == NetworkRole::text_encoder) rest(name, IdleNetworks::coders_leave);
}

std::map<std::string, std::string> LatentModel::text_class_names(const ModelFiles& files) const {
  std::map<std::string, std::string> names;
  for (const auto& [component, part] : files.parts) {
    if (part.role != NetworkRole::text_encoder || !formats::lacks_text_model_level(*part.weights))
      continue;
    for (const auto& [layer, pointer] : networks_.at(component).index.layers)
      if (std::string bare = nn::without_text_model_level(layer); bare != layer)
        names.emplace(std::string(component).append(".").append(layer), std::move(bare));
  }
  return names;
}

nn::Shape LatentModel::latent_shape(PictureSize size) const {
  const PictureSize latents = size.divided_by(vae_->config().downscale());
  return {vae_->config().latent_channels, latents.height, latents.width};
}

PictureSize LatentModel::picture_size(at::IntArrayRef latents) const {
  const std::int64_t unit = vae_->config().downscale();
  return {latents[latents.size() - 1] * unit, latents[latents.size() - 2] * unit};
}

models::VaeOptions LatentModel::coding() const {
  const std::int64_t usual = options_.low_memory ? vae_->config().sample_size : 0;
  const std::int64_t tile = options_.tile > 0 ? options_.tile : usual;
  return {.slicing = tile > 0, .tile = tile};
}

LatentPosterior LatentModel::encode(const at::Tensor& pictures) const {
  memory_of("vae").enter();
  const models::LatentDistribution posterior = vae_->encode(pictures.to(options_.device), coding());
  rest("vae", IdleNetworks::coders_leave);
  const at::Tensor deviation = (0.5 * posterior.log_variance).exp();
  return {vae_->scale(posterior.mean), deviation * vae_->config().scaling_factor};
}

at::Tensor LatentModel::decode(const at::Tensor& latents) const {
  rest(denoiser_, IdleNetworks::all_leave);  // it comes back with its next step
  memory_of("vae").enter();
  at::Tensor pictures =
      vae_->decode(vae_->unscale(latents.to(options_.device, at::kFloat)), coding());
  rest("vae", IdleNetworks::coders_leave);
  return pictures;
}

/// The part of a picture that the autoencoder sees at a time.
PictureSize LatentModel::coded_at_once(PictureSize size) const {
  const std::int64_t side = coding().tile;
  if (side == 0) return size;
  return {std::min(size.width, side), std::min(size.height, side)};
}

// The autoencoder always computes in fp32.
double LatentModel::encoding_bytes(PictureSize size) const {
  return bytes_of(vae_encoding(vae_->config(), coded_at_once(size)), at::kFloat);
}

double LatentModel::decoding_bytes(PictureSize size) const {
  // Tiles' results lie beside each other, in rows, and in the picture.
  constexpr double kColours = 3.0, kCopies = 3.0;
  const double joined = coding().tile == 0 ? 0.0
                                           : kColours * kCopies * static_cast<double>(size.width) *
                                                 static_cast<double>(size.height);
  return bytes_of(vae_decoding(vae_->config(), 1, coded_at_once(size)) + joined, at::kFloat);
}

}  // namespace ringlet::pipeline
