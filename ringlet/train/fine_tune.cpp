#include "ringlet/train/fine_tune.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

#include "ringlet/adapt/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_folder.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/train/fine_tune_internal.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kControlNet = "controlnet";
constexpr const char* kScores = "control.csv";

/// What people call the run: the name of its folder.
std::string title_of(const fs::path& out) {
  std::string name = (out.has_filename() ? out : out.parent_path()).filename().string();
  constexpr auto kOutsideAscii = [](char c) { return (c & 0x80) != 0; };
  if (!is_utf8(name)) std::ranges::replace_if(name, kOutsideAscii, '?');
  return name;
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
  if (adapts()) adapt::parse_method(options_.method);  // before the model is loaded
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
  if (adapts()) build_adapters();
  if (options_.control) {
    control_ = pipeline::ControlNetwork::create(options_.control->network, *model_, options_.seed);
    options_.loss.control = &*control_;
  }
  make_plan();
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
  if (adapters_)
    for (const auto& [name, tensor] : adapters_->parameters()) {
      const bool transform = name.find(".transform.") != std::string::npos;
      found.push_back({name, tensor, transform ? tensor.detach().clone() : at::Tensor()});
    }
  if (control_)
    for (const auto& [name, tensor] : control_->tensors())
      found.push_back({"control." + name, tensor, {}});
  return found;
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
  return encode_pictures(
      *model_, pictures, options_.crop, options_.cache,
      [&] {
        ++done;
        return !observer.progress || observer.progress(stage, done, pictures.size());
      },
      options_.control ? &options_.control->settings : nullptr);
}

std::unique_ptr<ControlValidation> FineTune::control_validation(
    const FineTuneObserver& observer) const {
  std::vector<io::Image> sources;
  for (const data::Picture& picture : validation_pictures_)
    sources.push_back(data::square_crop(io::read_image(picture.path), options_.crop.size).image);
  CropOptions centre{.size = options_.crop.size};
  std::size_t done = 0;
  TrainingSet encoded = encode_pictures(
      *model_, validation_pictures_, centre, options_.cache,
      [&] {
        ++done;
        return !observer.progress ||
               observer.progress("encoding validation pictures", done, validation_pictures_.size());
      },
      &options_.control->settings);
  return std::make_unique<ControlValidation>(*model_, *control_, std::move(encoded),
                                             std::move(sources), options_.control->metric,
                                             options_.samples);
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
    if (!penalised || !adapters_) return loss;
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

io::Image FineTune::samples(Trainer& trainer, std::int64_t step) {
  if (adapters_) adapters_->begin_step({}, Random(options_.seed), 0);  // pictures drop nothing
  trainer.swap_averages();
  io::Image grid;
  try {
    if (validation_)
      scores_->add(validation_->measure(step, grid));
    else
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
  const bool sampling = validation_ || !options_.samples.prompts.empty();
  const auto due = [&](std::int64_t step) {
    return sampling && (step == steps || (every > 0 && step % every == 0));
  };
  // A failing picture must not end a run whose state is sound.
  const auto add_samples = [&](std::int64_t step) {
    try {
      log.add_samples(step, samples(trainer, step));
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
  if (adapts()) return options_.out / "adapter.safetensors";
  return options_.out / (full() ? "model" : kControlNet);
}

void FineTune::save_result(Trainer& trainer) const {
  trainer.swap_averages();
  if (full()) {
    pipeline::save_model(
        *model_, result(),
        {.replacements = pipeline::trained_tensors(*model_), .dtype = options_.save_precision});
  }
  if (control_ && control_->kind() == pipeline::ControlKind::controlnet)
    control_->save(options_.out / kControlNet);
  if (adapters_) save_adapters(trainer);
  trainer.swap_averages();
}

void FineTune::save_adapters(Trainer& trainer) const {
  Json training = options_.trainer.settings;
  training["steps"] = trainer.steps_done();
  training["ringlet"] = kVersion;
  const std::string size = std::to_string(options_.crop.size);
  adapt::AdapterFileInfo info = {.base_hash = training.at("model").get<std::string>(),
                                 .training = training.dump(),
                                 .extra = {{"modelspec.title", title_of(options_.out)},
                                           {"modelspec.resolution", size + "x" + size}},
                                 .storage = options_.save_precision};
  if (control_ && control_->kind() == pipeline::ControlKind::encoder) {
    info.control =
        Json{{"network", "encoder"}, {"signal", data::name_of(options_.control->settings.signal)}}
            .dump();
    info.control_tensors = control_->tensors();
  }
  adapt::save_adapter(result(), *adapters_, info);
}

bool FineTune::run(const FineTuneObserver& observer) {
  if (options_.samples.prompts.empty() && !options_.control)
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
  if (!validation_pictures_.empty()) {
    validation_ = control_validation(observer);
    scores_.emplace(options_.out / kScores, trainer.steps_done());
  }
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
  if (scores_) add_scores(report, *scores_, options_.control->metric.name);
  log.write_report(std::move(report), validation_ ? "per row: source, control signal, result"
                                                  : join(options_.samples.prompts, "\n"));
  return finished;
}

}  // namespace ringlet::train
