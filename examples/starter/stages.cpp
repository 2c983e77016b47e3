// The stages of the starter model that are not diffusion training, and its judge: they show how
// networks of one's own are trained with ringlet::train::Trainer.
//
//     ringlet_starter_stages autoencoder MODEL PICTURES OUT STEPS
//     ringlet_starter_stages text        MODEL PICTURES OUT STEPS
//     ringlet_starter_stages judge       MODEL PICTURES OUT STEPS
//     ringlet_starter_stages features    MODEL PICTURES OUT STEPS
//
// MODEL may lack weights: such parts start at random. Checkpoints go to OUT/checkpoints, and a call
// with the same arguments goes on from them.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/random.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/image_tensor.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
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
    const io::Image image =
        io::resize_and_crop(io::read_image(picture.path), PictureSize::square(size));
    rows.push_back(((pipeline::image_to_tensor(image) + 1.0) * 127.5).round().to(at::kByte));
    data.captions.push_back(picture.caption);
  }
  data.pictures = at::cat(rows);
  return data;
}

at::Tensor as_input(const at::Tensor& bytes) { return bytes.to(at::kFloat) / 127.5 - 1.0; }

void run(train::Trainer& trainer, const train::TrainerOptions& options) {
  const train::CheckpointFolder folder(options.checkpoint_folder, options.keep_checkpoints);
  if (const auto latest = folder.latest()) trainer.resume(*latest);
  double smooth = 0.0;
  trainer.run([&](const train::StepResult& step) {
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
  options.optimizer = train::adamw({.beta2 = 0.99, .weight_decay = 1e-3});
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
  load_options.trainable = {pipeline::NetworkRole::autoencoder};
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
  train::Trainer trainer(train::trainables(model.networks().at("vae").index), loss, options);
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
  model.save(arguments.out / "model",
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

at::Tensor unit(const at::Tensor& x) { return x / x.norm(2, -1, true); }

at::Tensor encode_texts(const pipeline::StableDiffusion& model,
                        const std::vector<std::string>& captions) {
  return unit(pipeline::encode_prompts(model.text(), captions, 1, at::kCPU).embeddings.mean(1));
}

at::Tensor latents_of(const pipeline::StableDiffusion& model, const at::Tensor& pictures) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  for (const at::Tensor& part : pictures.split(16))
    parts.push_back(model.vae().scale(model.vae().encode(as_input(part)).mean));
  return at::cat(parts).contiguous();
}

pipeline::StableDiffusion open_for_text(const fs::path& folder, std::uint64_t seed) {
  pipeline::LoadOptions options;
  options.files.random_seed = seed;
  options.trainable = {pipeline::NetworkRole::text_encoder};
  return pipeline::StableDiffusion::open(folder, options);
}

/// Contrastive training (Radford et al. 2021): captions find their pictures' latents among those of
/// the batch.
void train_contrastive(const pipeline::StableDiffusion& model, const LatentEncoder& encoder,
                       const at::Tensor& latents, const std::vector<std::string>& captions,
                       const train::TrainerOptions& options) {
  constexpr std::int64_t kBatch = 128;
  const auto loss = [&](std::int64_t micro_batch) {
    RandomStream random = Random(kSeed).stream("batch", static_cast<std::uint64_t>(micro_batch));
    std::vector<at::Tensor> rows;
    std::vector<std::string> texts;
    for (std::int64_t i = 0; i < kBatch; ++i) {
      const auto row = random.uniform_int(static_cast<std::uint64_t>(latents.size(0)));
      texts.push_back(captions[row]);
      rows.push_back(latents[static_cast<std::int64_t>(row)]);
    }
    constexpr double kTemperature = 0.07;
    const at::Tensor scores =
        at::matmul(encode_texts(model, texts), unit(encoder.forward(at::stack(rows))).t()) /
        kTemperature;
    const at::Tensor own = at::arange(kBatch, at::kLong);
    return 0.5 * (at::cross_entropy_loss(scores, own) + at::cross_entropy_loss(scores.t(), own));
  };
  std::vector<train::Trainable> parameters =
      train::trainables(model.networks().at("text_encoder").index);
  for (train::Trainable& parameter : train::trainables(encoder.index, "latents."))
    parameters.push_back(std::move(parameter));
  train::Trainer trainer(std::move(parameters), loss, options);
  run(trainer, options);
  trainer.swap_averages();
}

LatentEncoder latent_encoder_for(const pipeline::StableDiffusion& model,
                                 const at::Tensor& latents) {
  return {latents.size(1), latents.size(2), model.text().front().encoder.config().hidden_size};
}

/// The start of the text encoder, so that words differ before the U-Net listens to them.
void train_text(const Arguments& arguments) {
  const auto model = open_for_text(arguments.model, kSeed);
  const Data data = load(arguments.pictures, model.vae().config().sample_size);
  const at::Tensor latents = latents_of(model, data.pictures);
  train_contrastive(model, latent_encoder_for(model, latents), latents, data.captions,
                    options_for(arguments, 1e-3));
  model.save(arguments.out / "model",
             {.replacements = pipeline::trained_tensors(model), .dtype = {}});
}

/// Pictures zoomed and shifted at random: other renderings of the same concepts.
at::Tensor rendered_anew(const at::Tensor& pictures, RandomStream random) {
  std::vector<at::Tensor> rows;
  const std::int64_t size = pictures.size(2);
  for (const at::Tensor& picture : pictures.unbind()) {
    const auto draw = [&](std::int64_t n) {
      return static_cast<std::int64_t>(random.uniform_int(static_cast<std::uint64_t>(n)));
    };
    const std::int64_t margin = size / 8, side = size + margin - draw(2 * margin);
    at::Tensor wide = at::replication_pad2d(picture.to(at::kFloat).unsqueeze(0),
                                            {margin, margin, margin, margin});
    const std::int64_t room = wide.size(2) - side + 1;
    wide = wide.narrow(2, draw(room), side).narrow(3, draw(room), side);
    if (draw(2) == 1) wide = wide.flip(3);
    rows.push_back(at::upsample_bilinear2d(wide, {size, size}, false).to(at::kByte));
  }
  return at::cat(rows);
}

/// Trains a judge (a text encoder from random weights and a latent encoder) on other renderings and
/// asks it for the captions of generated pictures: OUT/generated/*.png with .txt beside them.
void judge(const Arguments& arguments) {
  const auto model = open_for_text(arguments.model, kSeed + 1);
  const std::int64_t size = model.vae().config().sample_size;
  const Data data = load(arguments.pictures, size);
  std::vector<at::Tensor> parts;
  std::vector<std::string> captions;
  constexpr std::uint64_t kRenderings = 4;
  for (std::uint64_t i = 0; i < kRenderings; ++i) {
    parts.push_back(
        latents_of(model, rendered_anew(data.pictures, Random(kSeed).stream("rendering", i))));
    captions.insert(captions.end(), data.captions.begin(), data.captions.end());
  }
  const at::Tensor latents = at::cat(parts);
  const LatentEncoder encoder = latent_encoder_for(model, latents);
  train_contrastive(model, encoder, latents, captions, options_for(arguments, 1e-3));

  at::NoGradGuard no_grad;
  const Data made = load(arguments.out / "generated", size);
  std::vector<std::string> candidates = data.captions;
  for (const std::string& caption : made.captions)
    if (std::ranges::find(candidates, caption) == candidates.end()) candidates.push_back(caption);
  std::vector<at::Tensor> texts;
  for (std::size_t i = 0; i < candidates.size(); i += 64)
    texts.push_back(encode_texts(model, {candidates.begin() + static_cast<std::ptrdiff_t>(i),
                                         candidates.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                                  i + 64, candidates.size()))}));
  const at::Tensor scores =
      at::matmul(unit(encoder.forward(latents_of(model, made.pictures))), at::cat(texts).t());
  const at::Tensor best = std::get<1>(scores.topk(5, 1));
  int first = 0, among_five = 0;
  for (std::size_t i = 0; i < made.captions.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    const auto answer = [&](std::int64_t n) {
      return candidates[static_cast<std::size_t>(best[row][n].item<std::int64_t>())];
    };
    first += answer(0) == made.captions[i] ? 1 : 0;
    for (std::int64_t n = 0; n < 5; ++n) among_five += answer(n) == made.captions[i] ? 1 : 0;
    std::printf("%-32s %s\n", made.captions[i].c_str(), answer(0).c_str());
  }
  std::printf("right caption among %zu: first %d, among the first five %d, of %zu pictures\n",
              candidates.size(), first, among_five, made.captions.size());
}

/// A small CLIP for pictograms.
Json features_config(const tokenizers::ClipTokenizer& tokenizer, std::int64_t words) {
  const Json shared = {{"hidden_size", 128},
                       {"intermediate_size", 512},
                       {"num_attention_heads", 4},
                       {"hidden_act", "gelu"},
                       {"layer_norm_eps", 1e-5}};
  Json vision = shared, text = shared;
  vision.update({{"num_hidden_layers", 4}, {"image_size", 128}, {"patch_size", 16}});
  text.update({{"num_hidden_layers", 2},
               {"vocab_size", words},
               {"max_position_embeddings", 24},
               {"eos_token_id", tokenizer.end_id()}});
  return {{"model_type", "clip"},
          {"architectures", {"CLIPModel"}},
          {"projection_dim", 64},
          {"vision_config", vision},
          {"text_config", text}};
}

/// The two sides of a CLIP with random weights that learn.
struct FeatureModel {
  nn::WeightSource source{std::make_shared<nn::RandomStore>(kSeed), {.trainable = true}};
  tokenizers::ClipTokenizer tokenizer;
  Json config;
  models::VisionTransformer vision;
  models::ClipTextModel text;
  at::Tensor scale;
  nn::ModuleIndex index;

  FeatureModel(tokenizers::ClipTokenizer words, std::int64_t count)
      : tokenizer(std::move(words)),
        config(features_config(tokenizer, count)),
        vision(source, models::VisionConfig::from_json(config, "features")),
        text(source, models::ClipTextConfig::from_clip_json(config, "features")),
        scale(source.get("logit_scale", {}, nn::Init::constant(std::log(1.0 / 0.07)))),
        index(source.finish()) {}

  at::Tensor texts(const std::vector<std::string>& captions) const {
    std::vector<at::Tensor> rows;
    for (const std::string& caption : captions)
      rows.push_back(at::tensor(
          tokenizer.encode_prompt(caption, text.config().max_position_embeddings).ids, at::kLong));
    return unit(text.forward(at::stack(rows)).pooled);
  }
  at::Tensor pictures(const at::Tensor& bytes) const {
    return unit(vision.features(as_input(bytes)));
  }
};

/// The share of new renderings whose own caption is the nearest.
double found_share(const FeatureModel& model, const Data& data, std::int64_t most) {
  at::NoGradGuard no_grad;
  const at::Tensor some = data.pictures.narrow(0, 0, std::min(most, data.pictures.size(0)));
  std::vector<at::Tensor> seen, read;
  for (const at::Tensor& part : rendered_anew(some, Random(kSeed).stream("check")).split(32))
    seen.push_back(model.pictures(part));
  for (std::size_t i = 0; i < data.captions.size(); i += 64)
    read.push_back(model.texts({data.captions.begin() + static_cast<std::ptrdiff_t>(i),
                                data.captions.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                            i + 64, data.captions.size()))}));
  const at::Tensor best = at::matmul(at::cat(seen), at::cat(read).t()).argmax(1);
  return (best == at::arange(some.size(0))).to(at::kDouble).mean().item<double>();
}

void save_features(const FeatureModel& model, const fs::path& tokenizer, const fs::path& folder) {
  fs::create_directories(folder);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : model.index.tensors)
    tensors.emplace(name, tensor.detach().to(at::kHalf));
  io::save_tensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"})
    if (fs::exists(tokenizer / name))
      fs::copy_file(tokenizer / name, folder / name, fs::copy_options::overwrite_existing);
  const Json half = {0.5, 0.5, 0.5};
  const Json preprocessing = {{"size", {{"height", 128}, {"width", 128}}},
                              {"do_center_crop", false},
                              {"resample", 3},
                              {"image_mean", half},
                              {"image_std", half}};
  write_file_atomically(folder / "preprocessor_config.json", preprocessing.dump(2) + "\n");
  write_file_atomically(folder / "config.json", model.config.dump(2) + "\n");
}

/// Networks that measure pictograms: pictures and captions find each other (Radford et al. 2021).
/// OUT/features is a folder for `ringlet eval subject --dino … --clip …`.
void train_features(const Arguments& arguments) {
  const fs::path words = arguments.model / "tokenizer";
  const Json vocabulary = read_json_file(words / "vocab.json");
  const FeatureModel model(tokenizers::ClipTokenizer::open(words),
                           static_cast<std::int64_t>(vocabulary.size()));
  const Data data = load(arguments.pictures, model.vision.config().image_size);
  const auto loss = [&](std::int64_t micro_batch) {
    constexpr std::int64_t kBatch = 64;
    const auto step = static_cast<std::uint64_t>(micro_batch);
    RandomStream random = Random(kSeed).stream("batch", step);
    std::vector<at::Tensor> rows;
    std::vector<std::string> captions;
    for (std::int64_t i = 0; i < kBatch; ++i) {
      const auto row = random.uniform_int(static_cast<std::uint64_t>(data.pictures.size(0)));
      captions.push_back(data.captions[row]);
      rows.push_back(data.pictures[static_cast<std::int64_t>(row)]);
    }
    const at::Tensor pictures =
        rendered_anew(at::stack(rows), Random(kSeed).stream("rendering", step));
    const at::Tensor scores =
        at::matmul(model.pictures(pictures), model.texts(captions).t()) * model.scale.exp();
    const at::Tensor own = at::arange(kBatch, at::kLong);
    return 0.5 * (at::cross_entropy_loss(scores, own) + at::cross_entropy_loss(scores.t(), own));
  };
  const train::TrainerOptions options = options_for(arguments, 1e-3);
  train::Trainer trainer(train::trainables(model.index), loss, options);
  run(trainer, options);
  trainer.swap_averages();
  constexpr std::int64_t kChecked = 600;
  std::printf("own caption nearest for %.1f %% of new renderings\n",
              100.0 * found_share(model, data, kChecked));
  save_features(model, words, arguments.out / "features");
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, void (*)(const Arguments&)> stages = {
      {"autoencoder", train_autoencoder},
      {"text", train_text},
      {"judge", judge},
      {"features", train_features}};
  const auto stage = stages.find(argc > 1 ? argv[1] : "");
  if (argc != 6 || stage == stages.end()) {
    std::fprintf(stderr, "usage: %s autoencoder|text|judge|features MODEL PICTURES OUT STEPS\n",
                 argv[0]);
    return 2;
  }
  try {
    stage->second({argv[2], argv[3], argv[4], std::atoll(argv[5])});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
