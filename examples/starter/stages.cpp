// The two stages of the starter model that are not diffusion training, as programs of the library:
// they show how a network of one's own is trained with ringlet::train::Trainer.
//
//     ringlet_starter_stages autoencoder MODEL PICTURES OUT STEPS
//     ringlet_starter_stages text        MODEL PICTURES OUT STEPS
//
// MODEL may lack weights: such parts start at random. Checkpoints go to OUT/checkpoints, and a call
// with the same arguments goes on from them.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/random.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/image_tensor.h"
#include "ringlet/pipeline/model_folder.h"
#include "ringlet/pipeline/stable_diffusion.h"
#include "ringlet/train/trainer.h"

namespace {

using namespace ringlet;
namespace fs = std::filesystem;

constexpr std::uint64_t kSeed = 7;

struct Arguments {
  fs::path model, pictures, out;
  std::int64_t steps;
};

struct Data {
  at::Tensor pictures;  ///< [N, 3, size, size] bytes
  std::vector<std::string> captions;
};

Data load(const fs::path& folder, std::int64_t size) {
  Data data;
  std::vector<at::Tensor> rows;
  for (const data::Picture& picture : data::read_picture_folder(folder).pictures) {
    const io::Image image = io::resize_and_crop(io::read_image(picture.path), size, size);
    rows.push_back(((pipeline::image_to_tensor(image) + 1.0) * 127.5).round().to(at::kByte));
    data.captions.push_back(picture.caption);
  }
  data.pictures = at::cat(rows);
  return data;
}

at::Tensor as_input(const at::Tensor& bytes) { return bytes.to(at::kFloat) / 127.5 - 1.0; }

std::vector<train::Trainable> trainables(const nn::ModuleIndex& index, const std::string& prefix) {
  std::vector<train::Trainable> found;
  for (const auto& [name, tensor] : index.tensors) found.push_back({prefix + name, tensor, {}});
  return found;
}

void run(train::Trainer& trainer, const train::TrainerOptions& options) {
  const train::CheckpointFolder folder(options.checkpoint_folder, options.keep_checkpoints);
  if (const auto latest = folder.latest()) trainer.resume(*latest);
  double smooth = 0.0;
  trainer.run([&](const train::StepReport& step) {
    smooth = smooth == 0.0 ? step.loss : 0.98 * smooth + 0.02 * step.loss;
    if (step.step % 50 == 0) {
      std::printf("step %lld loss %.4f norm %.2f %.2f s/step\n", static_cast<long long>(step.step),
                  smooth, step.gradient_norm, step.seconds);
      std::fflush(stdout);
    }
    return true;
  });
}

train::TrainerOptions options_for(const Arguments& arguments, double rate) {
  train::TrainerOptions options;
  options.steps = arguments.steps;
  options.learning_rate = {.peak = rate, .decay = train::Decay::cosine, .warmup = 50, .steps = 1};
  options.adamw.beta2 = 0.99;
  options.adamw.weight_decay = 1e-3;
  options.ema_decay = 0.998;
  options.checkpoint_every = 250;
  options.checkpoint_folder = arguments.out / "checkpoints";
  return options;
}

/// Reconstruction (absolute and squared error) and a faint pull of the latents to unit deviation,
/// on crops; the last fifth of the run sees whole pictures.
void train_autoencoder(const Arguments& arguments) {
  pipeline::LoadOptions load_options;
  load_options.files.random_seed = kSeed;
  load_options.trainable = {"vae"};
  const auto model = pipeline::StableDiffusion::open(arguments.model, load_options);
  const std::int64_t size = model.vae().config().sample_size;
  const Data data = load(arguments.pictures, size);

  const auto loss = [&](std::int64_t micro_batch) {
    const bool whole = micro_batch > arguments.steps * 4 / 5;
    const std::int64_t batch = whole ? 4 : 16, crop = whole ? size : size / 2;
    RandomStream random = Random(kSeed).stream("crop", static_cast<std::uint64_t>(micro_batch));
    std::vector<at::Tensor> rows;
    for (std::int64_t i = 0; i < batch; ++i) {
      const auto draw = [&](std::int64_t n) {
        return static_cast<std::int64_t>(random.uniform_int(static_cast<std::uint64_t>(n)));
      };
      at::Tensor row = data.pictures[draw(data.pictures.size(0))]
                           .narrow(1, draw(size - crop + 1), crop)
                           .narrow(2, draw(size - crop + 1), crop);
      rows.push_back(draw(2) == 0 ? row : row.flip(2));
    }
    const at::Tensor x = as_input(at::stack(rows));
    const auto latents = model.vae().encode(x);
    at::Tensor noise = at::empty_like(latents.mean).contiguous();
    random.fill_normal({noise.data_ptr<float>(), static_cast<std::size_t>(noise.numel())});
    const at::Tensor error = model.vae().decode(latents.sample(noise)) - x;
    const at::Tensor divergence =
        0.5 * (latents.mean.pow(2) + latents.log_variance.exp() - 1.0 - latents.log_variance);
    return error.abs().mean() + error.pow(2).mean() + 1e-5 * divergence.mean();
  };
  const train::TrainerOptions options = options_for(arguments, 1.5e-3);
  train::Trainer trainer(trainables(model.indices().at("vae"), ""), loss, options);
  run(trainer, options);
  trainer.swap_averages();

  // The U-Net wants latents of deviation one (Rombach et al. 2022, appendix G).
  at::NoGradGuard no_grad;
  const std::int64_t sampled = std::min<std::int64_t>(256, data.pictures.size(0));
  std::vector<at::Tensor> means;
  double squares = 0.0;
  for (const at::Tensor& part : data.pictures.narrow(0, 0, sampled).split(16)) {
    const at::Tensor x = as_input(part);
    means.push_back(model.vae().encode(x).mean);
    squares += (model.vae().decode(means.back()).clamp(-1, 1) - x).pow(2).sum().item<double>();
  }
  const double count = static_cast<double>(sampled * 3 * size * size);
  const double scale = 1.0 / at::cat(means).std().item<double>();
  std::printf("reconstruction %.2f dB, scaling factor %.4f\n",
              10.0 * std::log10(4.0 * count / squares), scale);
  pipeline::save_model(model, arguments.out / "model",
                       {.replacements = pipeline::trained_tensors(model), .dtype = {}});
  const fs::path config_path = arguments.out / "model/vae/config.json";
  Json config = read_json_file(config_path);
  config["scaling_factor"] = scale;
  write_file_atomically(config_path, config.dump(2) + "\n");
}

/// A small convolutional encoder of latents, thrown away afterwards.
struct LatentEncoder {
  nn::WeightSource source{std::make_shared<nn::RandomStore>(kSeed), {.trainable = true}};
  nn::Conv2d first, second;
  nn::Linear head;
  nn::ModuleIndex index;

  LatentEncoder(std::int64_t channels, std::int64_t side, std::int64_t width)
      : first(source.at("first"), channels, 48, 3, {.stride = 2, .padding = 1}),
        second(source.at("second"), 48, 96, 3, {.stride = 2, .padding = 1}),
        head(source.at("head"), 96 * (side / 4) * (side / 4), width),
        index(source.finish()) {}

  at::Tensor forward(const at::Tensor& latents) const {
    return head(at::silu(second(at::silu(first(latents)))).flatten(1));
  }
};

/// Contrastive start of the text encoder (Radford et al. 2021): captions find their pictures'
/// latents among those of the batch, so that words differ before the U-Net listens to them.
void train_text(const Arguments& arguments) {
  pipeline::LoadOptions load_options;
  load_options.files.random_seed = kSeed;
  load_options.trainable = {"text_encoder"};
  const auto model = pipeline::StableDiffusion::open(arguments.model, load_options);
  const Data data = load(arguments.pictures, model.vae().config().sample_size);
  at::Tensor latents;
  {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : data.pictures.split(16))
      parts.push_back(model.vae().scale(model.vae().encode(as_input(part)).mean));
    latents = at::cat(parts).contiguous();
  }
  const std::int64_t width = model.text().front().encoder.config().hidden_size;
  const LatentEncoder encoder(latents.size(1), latents.size(2), width);

  constexpr std::int64_t kBatch = 128;
  const auto loss = [&](std::int64_t micro_batch) {
    RandomStream random = Random(kSeed).stream("batch", static_cast<std::uint64_t>(micro_batch));
    std::vector<at::Tensor> rows;
    std::vector<std::string> captions;
    for (std::int64_t i = 0; i < kBatch; ++i) {
      const auto row = random.uniform_int(static_cast<std::uint64_t>(latents.size(0)));
      captions.push_back(data.captions[row]);
      rows.push_back(latents[static_cast<std::int64_t>(row)]);
    }
    const auto text =
        pipeline::encode_prompts(model.text(), captions, 1, at::kCPU).embeddings.mean(1);
    const auto unit = [](const at::Tensor& x) { return x / x.norm(2, -1, true); };
    constexpr double kTemperature = 0.07;
    const at::Tensor scores =
        at::matmul(unit(text), unit(encoder.forward(at::stack(rows))).t()) / kTemperature;
    const at::Tensor own = at::arange(kBatch, at::kLong);
    return 0.5 * (at::cross_entropy_loss(scores, own) + at::cross_entropy_loss(scores.t(), own));
  };
  std::vector<train::Trainable> parameters = trainables(model.indices().at("text_encoder"), "");
  for (train::Trainable& parameter : trainables(encoder.index, "latents."))
    parameters.push_back(std::move(parameter));
  const train::TrainerOptions options = options_for(arguments, 1e-3);
  train::Trainer trainer(std::move(parameters), loss, options);
  run(trainer, options);
  trainer.swap_averages();
  pipeline::save_model(model, arguments.out / "model",
                       {.replacements = pipeline::trained_tensors(model), .dtype = {}});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string stage = argc > 1 ? argv[1] : "";
  if (argc != 6 || (stage != "autoencoder" && stage != "text")) {
    std::fprintf(stderr, "usage: %s autoencoder|text MODEL PICTURES OUT STEPS\n", argv[0]);
    return 2;
  }
  const Arguments arguments{argv[2], argv[3], argv[4], std::atoll(argv[5])};
  try {
    stage == "text" ? train_text(arguments) : train_autoencoder(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
