#include "ringlet/train/fine_tune.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <utility>

#include "ringlet/adapt/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/train/fine_tune_internal.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kControlNet = "controlnet";
constexpr const char* kScores = "control.csv";

}  // namespace

FineTune::FineTune(FineTuneOptions options, const FineTuneObserver& observer)
    : options_(std::move(options)) {
  nn::with_ringlet_errors("training", [&] { prepare(observer); });
}

void FineTune::prepare(const FineTuneObserver& observer) {
  check_options(options_);
  read_pictures();
  options_.load.for_training = true;
  if (full()) {
    options_.load.trainable = {pipeline::NetworkRole::denoiser};
    if (options_.train_text_encoder)
      options_.load.trainable.insert(pipeline::NetworkRole::text_encoder);
  }
  model_ = pipeline::open_text_to_image_model(options_.model, options_.load);
  if (model_->inpaints())
    throw Error(ErrorCode::unsupported, options_.model.string(),
                "inpainting models cannot be trained", "use the model that it was made from");
  const std::int64_t unit = model_->size_unit();
  if (options_.crop.size.empty()) options_.crop.size = model_->defaults().size;
  for (const std::int64_t side : {options_.crop.size.width, options_.crop.size.height})
    if (side < unit || side % unit != 0)
      throw Error(ErrorCode::invalid_argument, Field("resolution"),
                  std::to_string(side) + " is not a multiple of " + std::to_string(unit));
  const std::int64_t layers = model_->text_layers();
  if (options_.loss.clip_skip < 1 || options_.loss.clip_skip > layers)
    throw Error(ErrorCode::invalid_argument, Field("clip_skip"),
                "must lie between 1 and " + std::to_string(layers) +
                    ", the number of the text encoder's layers");
  options_.samples.size = options_.crop.size;
  options_.samples.clip_skip = options_.loss.clip_skip;
  options_.crop.seed = options_.loss.seed = options_.seed;
  options_.loss.train_text = options_.train_text_encoder;
  if (adapts()) build_adapters();
  if (options_.control) {
    control_ = model_->create_control(options_.control->network, options_.seed);
    options_.loss.control = control_.get();
  }
  make_plan();
  check_pictures(observer);  // after all that takes less time
  check_resume();
}

void FineTune::build_adapters() {
  if (options_.train_text_encoder) {
    if (options_.targets.presets.empty() && options_.targets.include.empty())
      options_.targets.presets = {"attention"};
    if (std::ranges::find(options_.targets.presets, "text-encoder") ==
        options_.targets.presets.end())
      options_.targets.presets.emplace_back("text-encoder");
  }
  const std::vector<adapt::Target> targets =
      adapt::select_targets(pipeline::adaptable(*model_), options_.targets);
  for (const adapt::Target& target : targets)
    if (model_->networks().at(target.component).role == pipeline::NetworkRole::text_encoder)
      options_.loss.train_text = true;
  adapters_.emplace(options_, targets, options_.seed);
  options_.learning = adapters_->method();
  plan_.budget = adapters_->budget();
}

std::vector<Trainable> FineTune::trainables() const {
  std::vector<Trainable> found;
  if (full()) {
    for (const auto& [component, network] : model_->networks())
      if (options_.load.trainable.contains(network.role))
        std::ranges::move(train::trainables(network.index, component + "."),
                          std::back_inserter(found));
    return found;
  }
  if (adapters_) found = train::trainables(adapters_->set());
  if (control_)
    for (const auto& [name, tensor] : control_->tensors())
      found.push_back({"control." + name, tensor});
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
  make_folder(options_.class_images);
  for (std::size_t i = 0; i < missing.size();) {
    pipeline::GenerateRequest request;
    request.prompt = options_.class_prompt;
    request.size = options_.crop.size;
    request.clip_skip = options_.loss.clip_skip;
    request.steps = options_.samples.steps;
    request.guidance = options_.samples.guidance;
    request.seeds.clear();
    // The seed belongs to the number: a picture that is made again is the same.
    for (std::size_t n = i; n < std::min(missing.size(), i + kBatch); ++n)
      request.seeds.push_back(
          Random(options_.seed).stream("class picture", missing[n] - 1).next_u64() >> 1);
    bool go_on = true;
    for (const at::Tensor& latent : pipeline::sample(*model_, request).split(1)) {
      io::write_png(file_of(missing[i++]), pipeline::decode_images(*model_, latent).front());
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
    sources.push_back(data::covering_crop(io::read_image(picture.path), options_.crop.size).image);
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
  return [this, denoising](std::int64_t micro_batch) {
    const nn::GradientCheckpointing checkpointing(options_.gradient_checkpointing);
    if (adapters_) adapters_->begin_step(micro_batch);
    const at::Tensor loss = (*denoising)(micro_batch);  // the backward pass may repeat parts of it
    return adapters_ ? adapters_->penalised(loss) : loss;
  };
}

io::Image FineTune::samples(Trainer& trainer, std::int64_t step) {
  if (adapters_) adapters_->end_steps();  // pictures drop nothing
  const AveragedParameters averaged(trainer);
  if (!validation_) return sample_sheet(*model_, options_.samples);
  io::Image grid;
  scores_->add(validation_->measure(step, grid));
  return grid;
}

bool FineTune::train(Trainer& trainer, RunLog& log, const FineTuneObserver& observer) {
  const std::int64_t steps = options_.trainer.steps, every = options_.sample_every;
  const bool sampling =
      options_.trainer.data_parallel.writes() && (validation_ || !options_.samples.prompts.empty());
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
  if (adapters_) adapters_->set().attach();
  // Those that an interruption after the checkpoint has prevented.
  if (first > 0 && due(first) && !log.has_samples(first)) add_samples(first);
  return_free_memory();  // of coding and sampling pictures
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

std::optional<fs::path> FineTune::controlnet() const {
  if (!control_ || control_->kind() != pipeline::ControlKind::controlnet) return std::nullopt;
  return options_.out / kControlNet;
}

void FineTune::save_result(Trainer& trainer) const {
  if (!options_.trainer.data_parallel.writes()) return;
  const AveragedParameters averaged(trainer);
  if (full()) {
    model_->save(result(), {.replacements = pipeline::trained_tensors(*model_),
                            .dtype = options_.save_precision});
  }
  if (const auto folder = controlnet()) control_->save(*folder, options_.save_precision);
  if (adapters_) save_adapters(trainer);
}

void FineTune::save_adapters(Trainer& trainer) const {
  Json training = options_.trainer.settings;
  training["steps"] = trainer.steps_done();
  training["ringlet"] = kVersion;
  adapt::AdapterFileInfo info = {.base_hash = training.at("model").get<std::string>(),
                                 .training = training.dump(),
                                 .extra = {{"modelspec.title", run_title(options_.out)},
                                           {"modelspec.resolution", options_.crop.size.text()}},
                                 .storage = options_.save_precision};
  if (control_ && control_->kind() == pipeline::ControlKind::encoder) {
    info.control =
        Json{{"network", "encoder"}, {"signal", data::name_of(options_.control->settings.signal)}}
            .dump();
    info.control_tensors = control_->tensors();
  }
  adapt::save_adapter(result(), adapters_->set(), info);
}

bool FineTune::run(const FineTuneObserver& observer) {
  return nn::with_ringlet_errors("training", [&] { return run_stages(observer); });
}

bool FineTune::run_stages(const FineTuneObserver& observer) {
  if (options_.samples.prompts.empty() && !options_.control)
    for (const auto& example : plan_.examples) options_.samples.prompts.push_back(example.first);
  make_class_pictures(observer);
  options_.trainer.checkpoint_folder = options_.out / kCheckpoints;
  options_.trainer.settings = settings();
  options_.trainer.settings["model"] =
      model_->description().hash_files.empty() ? "" : pipeline::model_hash(model_->description());
  options_.trainer.settings["class pictures"] = fingerprint(class_pictures_);
  options_.trainer.settings["class pictures' contents"] = contents_of(class_pictures_);
  Trainer trainer(trainables(), loss_function(observer), options_.trainer);
  const CheckpointFolder folder(options_.trainer.checkpoint_folder, 1);
  if (options_.resume)
    if (const auto latest = folder.latest()) trainer.resume(*latest);
  RunLog log(options_.out, trainer.steps_done(), options_.trainer.data_parallel.writes());
  if (!validation_pictures_.empty()) {
    validation_ = control_validation(observer);
    scores_.emplace(options_.out / kScores, trainer.steps_done());
  }
  const bool finished = train(trainer, log, observer);
  if (finished) save_result(trainer);

  Report report;
  report.title = "ringlet: " + run_title(options_.out);
  report.summary = {{"method", plan_.method},
                    {"parameters", human_count(plan_.parameters)},
                    {"steps", std::to_string(trainer.steps_done())},
                    {"skipped steps", std::to_string(trainer.skipped())},
                    {"pictures", std::to_string(plan_.pictures)},
                    {"model", plan_.model_kind + ", " + model_->description().name}};
  report.settings = setting_lines(options_.trainer.settings);
  if (scores_) add_scores(report, *scores_, options_.control->metric.name);
  log.write_report(std::move(report), validation_ ? "per row: source, control signal, result"
                                                  : join(options_.samples.prompts, "\n"));
  return finished;
}

}  // namespace ringlet::train
