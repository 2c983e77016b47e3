#include "ringlet/train/fine_tune.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "ringlet/adapt/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_folder.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/train/memory_estimate.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kClassFolder = "class_images";
constexpr const char* kCheckpoints = "checkpoints";

/// Settings that run() adds.
constexpr std::array kLaterSettings = {"model", "class pictures"};

/// Names, sizes and captions of pictures: what a resumed run must find unchanged.
std::string fingerprint(const std::vector<data::Picture>& pictures) {
  std::string text;
  for (const data::Picture& picture : pictures)
    text += picture.path.filename().string() + "\n" + std::to_string(fs::file_size(picture.path)) +
            "\n" + picture.caption + "\n" + std::to_string(picture.repeats) + "\n";
  return Sha256().update(std::as_bytes(std::span(text))).hex();
}

void check_positive(const char* option, double value) {
  if (!(value > 0.0 && value <= std::numeric_limits<double>::max()))
    throw Error(ErrorCode::invalid_argument, option, "must be larger than 0");
}

void check_penalty(double weight) {
  if (!(weight >= 0.0 && weight <= std::numeric_limits<double>::max()))
    throw Error(ErrorCode::invalid_argument, "--penalty", "the weight must not be negative");
}

/// What people call the run: the name of its folder.
std::string title_of(const fs::path& out) {
  std::string name = (out.has_filename() ? out : out.parent_path()).filename().string();
  constexpr auto kOutsideAscii = [](char c) { return (c & 0x80) != 0; };
  if (!is_utf8(name)) std::ranges::replace_if(name, kOutsideAscii, '?');
  return name;
}

void check_options(const FineTuneOptions& o) {
  if (o.instance_images.empty())
    throw Error(ErrorCode::invalid_argument, "--instance-images",
                "the folder with the training pictures is needed");
  if (o.out.empty()) throw Error(ErrorCode::invalid_argument, "--out", "a folder is needed");
  check_positive("--steps", static_cast<double>(o.trainer.steps));
  check_positive("--batch-size", static_cast<double>(o.loss.batch_size));
  check_positive("--gradient-accumulation", static_cast<double>(o.trainer.gradient_accumulation));
  check_positive("--repeats", static_cast<double>(o.repeats));
  check_positive("--learning-rate", o.trainer.learning_rate.peak);
  if (!o.class_prompt.empty()) check_positive("--class-count", static_cast<double>(o.class_count));
  check_penalty(o.identity_penalty);
  check_penalty(o.orthogonal_penalty);
  if (o.class_prompt.empty() && !o.class_images.empty())
    throw Error(ErrorCode::invalid_argument, "--class-images",
                "prior preservation needs --class-prompt as well",
                "for example --class-prompt \"a photo of a dog\"");
  if (o.method == "full" && (o.identity_penalty > 0.0 || o.orthogonal_penalty > 0.0))
    throw Error(ErrorCode::invalid_argument, "--penalty",
                "penalties hold transforms near the identity, and --method full has none");
  if (o.method == "full" && !o.budget.empty())
    throw Error(ErrorCode::invalid_argument, "--budget", "--method full trains all weights",
                "name the parts to spend it on, for example --method \"trm+tr\"");
  const bool has_run = fs::is_directory(o.out / kCheckpoints) || fs::exists(o.out / "metrics.csv");
  if (has_run && !o.resume)
    throw Error(ErrorCode::invalid_argument, o.out.string(), "the folder holds a training run",
                "give --resume to go on with it, or another --out");
}

}  // namespace

std::optional<std::uint64_t> recorded_seed(const fs::path& out) {
  const auto latest = CheckpointFolder(out / kCheckpoints, 1).latest();
  if (!latest) return std::nullopt;
  return json_require<std::uint64_t>(CheckpointFolder::load(*latest).settings, "seed",
                                     latest->string());
}

FineTune::FineTune(FineTuneOptions options) : options_(std::move(options)) {
  check_options(options_);
  if (!full()) adapt::parse_method(options_.method);  // before the model is loaded
  read_pictures();
  options_.load.for_training = true;
  if (full()) {
    options_.load.trainable = {"unet"};
    if (options_.train_text_encoder) {
      options_.load.trainable.insert("text_encoder");
      options_.load.trainable.insert("text_encoder_2");
    }
  }
  model_ = std::make_unique<pipeline::StableDiffusion>(
      pipeline::StableDiffusion::open(options_.model, options_.load));
  if (model_->files().inpainting)
    throw Error(ErrorCode::unsupported, options_.model.string(),
                "inpainting models cannot be trained", "use the model that it was made from");
  const std::int64_t unit = model_->vae().config().downscale();
  if (options_.crop.size == 0) options_.crop.size = model_->unet().config().sample_size * unit;
  if (options_.crop.size < unit || options_.crop.size % unit != 0)
    throw Error(
        ErrorCode::invalid_argument, "--resolution",
        std::to_string(options_.crop.size) + " is not a multiple of " + std::to_string(unit));
  const std::int64_t layers = model_->text().front().encoder.config().num_hidden_layers;
  if (options_.loss.clip_skip < 1 || options_.loss.clip_skip > layers)
    throw Error(ErrorCode::invalid_argument, "--clip-skip",
                "must lie between 1 and " + std::to_string(layers) +
                    ", the number of the text encoder's layers");
  options_.samples.size = options_.crop.size;
  options_.crop.seed = options_.loss.seed = options_.seed;
  options_.loss.train_text = options_.train_text_encoder;
  if (!full()) build_adapters();
  make_plan();
}

void FineTune::read_pictures() {
  instance_ = data::read_picture_folder(options_.instance_images);
  for (data::Picture& picture : instance_.pictures) {
    picture.repeats *= options_.repeats;
    if (picture.caption.empty()) picture.caption = options_.instance_prompt;
    if (picture.caption.empty())
      throw Error(ErrorCode::invalid_argument, picture.path.string(), "the picture has no caption",
                  "give --instance-prompt \"a photo of sks dog\", or write the caption into " +
                      picture.path.stem().string() + ".txt");
  }
  if (options_.class_prompt.empty()) return;
  if (options_.class_images.empty()) options_.class_images = options_.out / kClassFolder;
  read_class_pictures();
}

void FineTune::read_class_pictures() {
  if (!fs::is_directory(options_.class_images)) return;
  try {
    class_pictures_ = data::read_picture_folder(options_.class_images).pictures;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found) throw;  // none yet: they will be made
  }
  const auto wanted = static_cast<std::size_t>(options_.class_count);
  if (class_pictures_.size() > wanted) class_pictures_.resize(wanted);
  for (data::Picture& picture : class_pictures_) picture.caption = options_.class_prompt;
}

void FineTune::build_adapters() {
  if (options_.train_text_encoder) {
    if (options_.targets.presets.empty() && options_.targets.include.empty())
      options_.targets.presets = {"attention"};
    if (std::ranges::find(options_.targets.presets, "text-encoder") ==
        options_.targets.presets.end())
      options_.targets.presets.emplace_back("text-encoder");
  }
  adapt::FactorTable factors;
  for (const auto& [size, split] : options_.factors) factors.set(size, split);
  const std::vector<adapt::Target> targets =
      adapt::select_targets(pipeline::adaptable(*model_), options_.targets);
  for (const adapt::Target& target : targets)
    if (target.component.starts_with("text_encoder")) options_.loss.train_text = true;
  if (!options_.budget.empty()) {
    std::vector<adapt::LayerShape> shapes;
    std::vector<std::string> parts;
    for (const adapt::Target& target : targets)
      shapes.push_back(adapt::LayerShape::of(target.layer->weight()));
    for (const adapt::PartSpec& part : adapt::parse_method(options_.method).parts)
      parts.push_back(part.name);
    const adapt::BudgetPlan fit =
        adapt::fit_budget(adapt::parse_budget(options_.budget), shapes, factors, parts);
    options_.method = fit.method.text();
    plan_.budget = fit.rows;
  }
  adapters_ = adapt::AdapterSet::create(adapt::parse_method(options_.method), targets, factors,
                                        Random(options_.seed));
  check_adapters();
}

void FineTune::check_adapters() {
  adapters_->begin_step(options_.dropout, Random(options_.seed), 0);  // refuses what has no ranks
  adapters_->begin_step({}, Random(options_.seed), 0);
  const auto has_penalty = [this](auto penalty) {
    const auto& transforms = adapters_->entries().front().adapter->parts().transforms;
    return std::ranges::any_of(
        transforms, [&](const auto& transform) { return penalty(*transform).defined(); });
  };
  const bool identity = options_.identity_penalty > 0.0 &&
                        !has_penalty([](const auto& t) { return t.identity_penalty(); });
  const bool orthogonal = options_.orthogonal_penalty > 0.0 &&
                          !has_penalty([](const auto& t) { return t.orthogonal_penalty(); });
  if (identity || orthogonal)
    throw Error(ErrorCode::invalid_argument, "--penalty", options_.method + " has no such penalty",
                "penalties are those of tensor-ring transforms: trm");
}

std::vector<Trainable> FineTune::trainables() const {
  std::vector<Trainable> found;
  if (full()) {
    for (const auto& [component, index] : model_->indices())
      if (options_.load.trainable.contains(component))
        for (const auto& [name, tensor] : index.tensors)
          found.push_back({component + "." + name, tensor, {}});
    return found;
  }
  for (const auto& [name, tensor] : adapters_->parameters()) {
    const bool transform = name.find(".transform.") != std::string::npos;
    found.push_back({name, tensor, transform ? tensor.detach().clone() : at::Tensor()});
  }
  return found;
}

void FineTune::make_plan() {
  plan_.model_kind = model_->files().kind;
  plan_.folder_rule = instance_.rule;
  plan_.pictures = instance_.pictures.size();
  plan_.captions = instance_.captions;
  plan_.class_pictures = class_pictures_.size();
  if (!options_.class_prompt.empty())
    plan_.class_to_make = static_cast<std::size_t>(options_.class_count) - class_pictures_.size();
  const auto& stage = model_->text().front();
  for (const data::Picture& picture : instance_.pictures) {
    const auto same = [&](const auto& example) { return example.first == picture.caption; };
    if (plan_.examples.size() < 3 && std::ranges::none_of(plan_.examples, same))
      plan_.examples.emplace_back(
          picture.caption,
          stage.tokenizer.encode(picture.caption, stage.encoder.config().max_position_embeddings)
              .used);
  }
  plan_.method = full() ? "full" : adapters_->method().text();
  plan_.layers = full() ? 0 : adapters_->entries().size();
  for (const Trainable& trainable : trainables()) plan_.parameters += trainable.value.numel();
  plan_.resolution = options_.crop.size;
  plan_.steps = options_.trainer.steps;
  std::int64_t shown = 0;
  for (const data::Picture& picture : instance_.pictures) shown += picture.repeats;
  plan_.epochs = static_cast<double>(plan_.steps * options_.trainer.gradient_accumulation *
                                     options_.loss.batch_size) /
                 static_cast<double>(shown);
  const std::int64_t rows = options_.loss.batch_size * (options_.class_prompt.empty() ? 1 : 2);
  plan_.expected_bytes = expected_training_bytes(*model_, plan_.parameters, options_.crop.size,
                                                 rows, options_.gradient_checkpointing);
  if (!options_.resume) return;
  const CheckpointFolder folder(options_.out / kCheckpoints, 1);
  const auto latest = folder.latest();
  if (!latest) return;
  const TrainState state = CheckpointFolder::load(*latest);
  plan_.first_step = state.step;
  // Before anything is made. run() compares the rest, which takes time to find out.
  const Json now = settings();
  Json before = state.settings;
  for (const char* later : kLaterSettings) before.erase(later);
  check_settings(before, now, latest->string());
}

Json FineTune::settings() const {
  const TrainerOptions& t = options_.trainer;
  const DiffusionLossOptions& l = options_.loss;
  Json settings = {{"method", plan_.method},
                   {"parameters", plan_.parameters},
                   {"pictures", fingerprint(instance_.pictures)},
                   {"class prompt", options_.class_prompt},
                   {"class count", options_.class_prompt.empty() ? 0 : options_.class_count},
                   {"prediction", static_cast<int>(model_->schedule().prediction())},
                   {"precision", nn::precision_name(options_.load.precision)},
                   {"resolution", options_.crop.size},
                   {"crop", options_.crop.random ? "random" : "centre"},
                   {"flip", options_.crop.flip},
                   {"seed", options_.seed},
                   {"batch size", l.batch_size},
                   {"gradient accumulation", t.gradient_accumulation},
                   {"learning rate", t.learning_rate.peak},
                   {"learning rate warm-up", t.learning_rate.warmup},
                   {"learning rate decay", static_cast<int>(t.learning_rate.decay)},
                   {"clip norm", t.clip_norm},
                   {"betas", {t.adamw.beta1, t.adamw.beta2}},
                   {"weight decay", t.adamw.weight_decay},
                   {"moving average", t.ema_decay},
                   {"prior weight", l.prior_weight},
                   {"min-SNR gamma", l.min_snr_gamma},
                   {"noise offset", l.noise_offset},
                   {"caption dropout", l.caption_dropout},
                   {"clip skip", l.clip_skip},
                   {"text encoder", options_.train_text_encoder},
                   {"identity penalty", options_.identity_penalty},
                   {"orthogonal penalty", options_.orthogonal_penalty},
                   {"dropout", options_.dropout.input},
                   {"rank dropout", options_.dropout.rank},
                   {"module dropout", options_.dropout.module}};
  // A schedule that falls to zero at the last step depends on how many there are.
  if (t.learning_rate.decay != Decay::constant) settings["steps"] = t.steps;
  return settings;
}

void FineTune::make_class_pictures(const FineTuneObserver& observer) {
  constexpr std::size_t kBatch = 4;
  const auto file_of = [&](std::size_t number) {
    char name[40];
    std::snprintf(name, sizeof name, "class-%05zu.png", number);
    return options_.class_images / name;
  };
  std::vector<std::size_t> missing;
  for (std::size_t number = 1; missing.size() < plan_.class_to_make; ++number)
    if (!fs::exists(file_of(number))) missing.push_back(number);
  if (missing.empty()) return;
  std::error_code problem;
  fs::create_directories(options_.class_images, problem);
  for (std::size_t i = 0; i < missing.size();) {
    pipeline::GenerateRequest request;
    request.prompt = options_.class_prompt;
    request.width = request.height = options_.crop.size;
    request.steps = options_.samples.steps;
    request.guidance.scale = options_.samples.guidance;
    request.seeds.clear();
    // The seed belongs to the number: a picture that is made again is the same.
    for (std::size_t n = i; n < std::min(missing.size(), i + kBatch); ++n)
      request.seeds.push_back(
          Random(options_.seed).stream("class picture", missing[n] - 1).next_u64() >> 1);
    bool go_on = true;
    for (const io::Image& image : model_->decode(model_->sample(request, {}))) {
      io::write_png(file_of(missing[i++]), image);
      go_on = go_on &&
              (!observer.progress || observer.progress("making class pictures", i, missing.size()));
    }
    if (!go_on)
      throw Error(ErrorCode::cancelled, "training", "stopped while class pictures were made",
                  "those made so far are kept");
  }
  read_class_pictures();  // in the order in which a resumed run finds them
}

TrainingSet FineTune::encode(const std::vector<data::Picture>& pictures, const std::string& stage,
                             const FineTuneObserver& observer) const {
  std::size_t done = 0;
  return encode_pictures(*model_, pictures, options_.crop, options_.cache, [&] {
    ++done;
    return !observer.progress || observer.progress(stage, done, pictures.size());
  });
}

LossFunction FineTune::loss_function(const FineTuneObserver& observer) const {
  TrainingSet prior;
  if (!class_pictures_.empty())
    prior = encode(class_pictures_, "encoding class pictures", observer);
  const auto denoising = std::make_shared<DiffusionLoss>(
      *model_, encode(instance_.pictures, "encoding pictures", observer), std::move(prior),
      options_.loss);
  const bool penalised = options_.identity_penalty > 0.0 || options_.orthogonal_penalty > 0.0;
  return [this, denoising, penalised](std::int64_t micro_batch) {
    const nn::GradientCheckpointing checkpointing(options_.gradient_checkpointing);
    if (options_.dropout.any())
      adapters_->begin_step(options_.dropout, Random(options_.seed),
                            static_cast<std::uint64_t>(micro_batch));
    at::Tensor loss = (*denoising)(micro_batch);  // the backward pass may compute parts of it again
    if (!penalised) return loss;
    for (const auto& entry : adapters_->entries()) {
      for (const auto& transform : entry.adapter->parts().transforms) {
        const auto add = [&loss](double weight, const at::Tensor& penalty) {
          if (weight > 0.0 && penalty.defined()) loss = loss + weight * penalty;
        };
        add(options_.identity_penalty, transform->identity_penalty());
        add(options_.orthogonal_penalty, transform->orthogonal_penalty());
      }
    }
    return loss;
  };
}

io::Image FineTune::samples(Trainer& trainer) const {
  if (adapters_) adapters_->begin_step({}, Random(options_.seed), 0);  // pictures drop nothing
  trainer.swap_averages();
  io::Image grid;
  try {
    grid = sample_sheet(*model_, options_.samples);
  } catch (...) {
    trainer.swap_averages();
    throw;
  }
  trainer.swap_averages();
  return grid;
}

bool FineTune::train(Trainer& trainer, RunLog& log, const FineTuneObserver& observer) {
  const std::int64_t steps = options_.trainer.steps, every = options_.sample_every;
  const bool sampling = !options_.samples.prompts.empty();
  const auto due = [&](std::int64_t step) {
    return sampling && (step == steps || (every > 0 && step % every == 0));
  };
  // A failing picture must not end a run whose state is sound.
  const auto add_samples = [&](std::int64_t step) {
    try {
      log.add_samples(step, samples(trainer));
    } catch (const Error& error) {
      ringlet::log(LogLevel::warning, std::string("no sample pictures: ") + error.what());
    }
  };
  const std::int64_t first = trainer.steps_done();
  if (sampling && first == 0) add_samples(0);
  if (adapters_) adapters_->attach();
  // Those that an interruption after the checkpoint has prevented.
  if (first > 0 && due(first) && !log.has_samples(first)) add_samples(first);
  const std::int64_t save_every = options_.trainer.checkpoint_every;
  return trainer.run(
      [&](const StepReport& step) {
        log.add(step);
        const bool go_on = !observer.step || observer.step(step);
        if (!go_on || step.step == steps || (save_every > 0 && step.step % save_every == 0))
          log.flush();
        return go_on;
      },
      [&](std::int64_t step) {
        if (due(step)) add_samples(step);
      });
}

fs::path FineTune::result() const {
  return options_.out / (full() ? "model" : "adapter.safetensors");
}

void FineTune::save_result(Trainer& trainer) const {
  trainer.swap_averages();
  if (full()) {
    pipeline::save_model(
        *model_, result(),
        {.replacements = pipeline::trained_tensors(*model_), .dtype = options_.save_precision});
  } else {
    Json training = options_.trainer.settings;
    training["steps"] = trainer.steps_done();
    training["ringlet"] = kVersion;
    adapt::save_adapter(
        result(), *adapters_,
        {.base_hash = training.at("model").get<std::string>(),
         .training = training.dump(),
         .extra = {{"modelspec.title", title_of(options_.out)},
                   {"modelspec.resolution",
                    std::to_string(options_.crop.size) + "x" + std::to_string(options_.crop.size)}},
         .storage = options_.save_precision});
  }
  trainer.swap_averages();
}

bool FineTune::run(const FineTuneObserver& observer) {
  if (options_.samples.prompts.empty())
    for (const auto& example : plan_.examples) options_.samples.prompts.push_back(example.first);
  make_class_pictures(observer);
  options_.trainer.checkpoint_folder = options_.out / kCheckpoints;
  options_.trainer.settings = settings();
  options_.trainer.settings["model"] =
      model_->files().unet_files.empty() ? "" : pipeline::model_hash(model_->files());
  options_.trainer.settings["class pictures"] = fingerprint(class_pictures_);
  Trainer trainer(trainables(), loss_function(observer), options_.trainer);
  const CheckpointFolder folder(options_.trainer.checkpoint_folder, 1);
  if (options_.resume)
    if (const auto latest = folder.latest()) trainer.resume(*latest);
  RunLog log(options_.out, trainer.steps_done());
  const bool finished = train(trainer, log, observer);
  if (finished) save_result(trainer);

  Report report;
  report.title = "ringlet: " + title_of(options_.out);
  report.summary = {{"method", plan_.method},
                    {"parameters", human_count(plan_.parameters)},
                    {"steps", std::to_string(trainer.steps_done())},
                    {"skipped steps", std::to_string(trainer.skipped())},
                    {"pictures", std::to_string(plan_.pictures)},
                    {"model", plan_.model_kind + ", " + model_->files().name}};
  for (const auto& [key, value] : options_.trainer.settings.items())
    report.settings.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  log.write_report(std::move(report), join(options_.samples.prompts, "\n"));
  return finished;
}

}  // namespace ringlet::train
