#include "ringlet/train/text_to_image/text_to_image_task.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>

#include <ATen/Parallel.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/data/crop.h"
#include "ringlet/data/picture_check.h"
#include "ringlet/data/picture_mask.h"
#include "ringlet/io/alpha_channel.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/train/epoch_order.h"
#include "ringlet/train/text_to_image/validation_loss.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

const TextToImageOptions& checked(const TextToImageOptions& options, const RunOptions& run) {
  check_options(options, run);
  return options;
}

ClassPictures class_pictures_of(const TextToImageOptions& options, const RunOptions& run) {
  if (options.class_prompt.empty()) return {};  // data sets have their own
  return find_class_pictures(class_folder(options, run),
                             static_cast<std::size_t>(options.class_count), options.class_prompt);
}

std::unique_ptr<pipeline::TextToImageModel> open_model(const TextToImageOptions& options,
                                                       const RunOptions& run) {
  pipeline::LoadOptions load = options.load;
  load.for_training = true;
  if (run.savings.storage != nn::WeightStorage::as_stored) load.storage = run.savings.storage;
  if (run.full()) {
    load.trainable = {pipeline::NetworkRole::denoiser};
    if (options.train_text_encoder) load.trainable.insert(pipeline::NetworkRole::text_encoder);
  }
  auto model = pipeline::open_text_to_image_model(options.model, load);
  if (model->inpaints())
    throw Error(ErrorCode::unsupported, options.model.string(),
                "inpainting models cannot be trained", "use the model that it was made from");
  check_loss(options.loss, *model);
  const std::int64_t layers = model->text_layers();
  if (options.loss.clip_skip > 1 && layers == 1)
    throw Error(ErrorCode::invalid_argument, Field("clip_skip"),
                model->description().kind + " takes no layer of its text encoders, only their last",
                "leave it out");
  if (options.loss.clip_skip < 1 || options.loss.clip_skip > layers)
    throw Error(ErrorCode::invalid_argument, Field("clip_skip"),
                "must lie between 1 and " + std::to_string(layers) +
                    ", the number of the text encoder's layers");
  return model;
}

CropOptions crop_for(const TextToImageOptions& options, const RunOptions& run,
                     const pipeline::TextToImageModel& model) {
  CropOptions crop = options.crop;
  crop.seed = run.seed;
  const std::int64_t unit = model.size_unit();
  if (crop.size.empty()) crop.size = model.defaults().size;
  for (const std::int64_t side : {crop.size.width, crop.size.height})
    if (side < unit || side % unit != 0)
      throw Error(ErrorCode::invalid_argument, Field("resolution"),
                  std::to_string(side) + " is not a multiple of " + std::to_string(unit),
                  "try " + std::to_string(std::max(unit, (side + unit / 2) / unit * unit)));
    else if (side > model.largest_side())
      throw Error(ErrorCode::invalid_argument, Field("resolution"),
                  std::to_string(side) + " pixels are too many",
                  "the largest side is " + std::to_string(model.largest_side()));
  return crop;
}

std::unique_ptr<ControlLearner> make_control(const TextToImageOptions& options,
                                             const pipeline::TextToImageModel& model,
                                             std::uint64_t seed) {
  if (!options.control) return nullptr;
  return std::make_unique<ControlLearner>(options.control, model, seed);
}

/// Finds the pictures' buckets on the way.
TextToImagePlan plan_with(TextToImagePlan plan, TrainingPictures& pictures,
                          const std::vector<data::Dataset>& sets, const CropOptions& crop,
                          const pipeline::TextToImageModel& model, const ControlLearner* control) {
  place_in_buckets(pictures.instance, sets, crop.size, {model.size_unit(), model.largest_side()});
  plan.resolution = crop.size;
  plan.buckets = bucket_counts(pictures.instance, crop.size);
  if (control) plan.control_parameters = control->parameter_count();
  return plan;
}

/// What of a file's line the model cannot do is known before the run starts.
void check_row(const pipeline::TextToImageModel& model, const SampleOptions& samples,
               const SamplePrompt& row) {
  try {
    pipeline::checked(model, sample_request(model, samples, row));
  } catch (const Error& error) {
    if (error.where() == row.place) throw;
    throw Error(error.code(), row.place, error.where() + ": " + error.message(), error.hint());
  }
}

SampleOptions samples_for(const TextToImageOptions& options, const CropOptions& crop,
                          const pipeline::TextToImageModel& model, const TextToImagePlan& plan) {
  SampleOptions samples = options.samples;
  samples.size = crop.size;
  if (!samples.guidance) samples.guidance = model.defaults().guidance;
  samples.clip_skip = options.loss.clip_skip;
  if (!samples.prompts_file.empty()) samples.from_file = read_sample_prompts(samples.prompts_file);
  if (samples.prompts.empty() && samples.from_file.empty() && !options.control)
    for (const auto& [caption, tokens] : plan.examples) samples.prompts.push_back(caption);
  for (const SamplePrompt& row : samples.from_file) check_row(model, samples, row);
  return samples;
}

}  // namespace

OpenTask text_to_image(const TextToImageOptions& options) {
  return
      [options](const RunOptions& run) { return std::make_unique<TextToImageTask>(options, run); };
}

TextToImageTask::TextToImageTask(const TextToImageOptions& options, const RunOptions& run)
    : options_(checked(options, run)),
      run_(run),
      pictures_(read_training_pictures(options_, run.seed)),
      class_pictures_(class_pictures_of(options_, run)),
      model_(open_model(options_, run)),
      crop_(crop_for(options_, run, *model_)),
      control_(make_control(options_, *model_, run.seed)),
      plan_(plan_with(make_plan(options_, *model_, pictures_, class_pictures_), pictures_,
                      datasets_of(options_), crop_, *model_, control_.get())),
      samples_(samples_for(options_, crop_, *model_, plan_)) {}

std::int64_t TextToImageTask::epoch_size() const {
  std::vector<std::int64_t> counts;
  for (const auto& [size, count] : buckets()) counts.push_back(count);
  return bucketed_epoch_size(counts, run_.batch_size * run_.trainer.data_parallel.count);
}

/// Of the resolutions of all data sets: no bucket has a larger area.
PictureSize TextToImageTask::largest_size() const {
  PictureSize largest = crop_.size;
  for (const data::Dataset& set : datasets_of(options_))
    if (set.resolution.width * set.resolution.height > largest.width * largest.height)
      largest = set.resolution;
  return largest;
}

adapt::Components TextToImageTask::components() const { return pipeline::adaptable(*model_); }

adapt::TargetOptions TextToImageTask::targets(const adapt::TargetOptions& asked) const {
  constexpr const char* kText = "text-encoder";
  adapt::TargetOptions targets = asked;
  if (!options_.train_text_encoder) return targets;
  if (targets.presets.empty() && targets.include.empty()) targets.presets = {"attention"};
  if (std::ranges::find(targets.presets, kText) == targets.presets.end())
    targets.presets.emplace_back(kText);
  return targets;
}

std::vector<Trainable> TextToImageTask::trainables() const {
  if (control_) return control_->trainables();
  std::vector<Trainable> found;
  for (const auto& [name, network] : model_->networks())
    if (model_->options().trainable.contains(network.role))
      std::ranges::move(train::trainables(network.index, name + "."), std::back_inserter(found));
  return found;
}

std::string TextToImageTask::example_size() const {
  const std::size_t count = plan_.buckets.size();
  return crop_.size.short_text() + " pixels" +
         (count > 1 ? ", in " + std::to_string(count) + " aspect buckets" : "");
}

DiffusionLossOptions TextToImageTask::loss_options(const Learners& learners) const {
  DiffusionLossOptions options = options_.loss;
  options.seed = run_.seed;
  options.batch_size = run_.batch_size;
  options.control = control_ ? &control_->network() : nullptr;
  options.train_text = options_.train_text_encoder;
  if (learners.adapters)
    for (const adapt::AdapterSet::Entry& entry : learners.adapters->entries())
      if (model_->networks().at(entry.target.component).role == pipeline::NetworkRole::text_encoder)
        options.train_text = true;
  return options;
}

MemoryRequest TextToImageTask::memory_request(const Learners& learners,
                                              const MemorySavings& savings) const {
  const std::int64_t largest = (run_.batch_size + savings.parts - 1) / savings.parts;
  return {.adapters = learners.adapters,
          .parameters = learners.parameters,
          .optimizer_bytes = learners.optimizer_bytes,
          .average = run_.trainer.ema_decay > 0.0,
          .full = run_.full(),
          .controlnet = control_ && control_->is_controlnet(),
          .text = loss_options(learners).train_text,
          .rows = largest * rows_per_example(),
          .size = largest_size(),
          .sampled = control_
                         ? std::min<std::int64_t>(static_cast<std::int64_t>(plan_.validation), 1)
                         : samples_.images,
          .storage = savings.storage == nn::WeightStorage::as_stored ? model_->options().storage
                                                                     : savings.storage,
          .offloaded = savings.offloaded};
}

void TextToImageTask::fit(const Learners& learners) {
  const std::optional<MemoryNeed> need = memory(learners, run_.savings);
  const auto all = static_cast<double>(need->peak(run_.savings.recomputed));
  pipeline::offload_for(*model_,
                        all - pipeline::weight_bytes(*model_, pipeline::NetworkRole::denoiser));
}

std::optional<MemoryNeed> TextToImageTask::memory(const Learners& learners,
                                                  const MemorySavings& savings) const {
  model_->code_in_tiles(savings.tile);
  MemoryNeed need = memory_need(*model_, memory_request(learners, savings));
  // What is computed again anyway is not open any more.
  const std::int64_t offloaded = std::max(savings.offloaded, pipeline::offloaded_blocks(*model_));
  const std::set<std::string> again = pipeline::offload_effect(*model_, offloaded).names;
  for (pipeline::StepBlock& block : need.blocks)
    if (options_.gradient_checkpointing || again.contains(block.name))
      if (!std::exchange(block.name, {}).empty()) block.passing += std::exchange(block.inside, 0.0);
  return need;
}

std::vector<nn::WeightStorage> TextToImageTask::storages() const {
  using nn::WeightStorage;
  const WeightStorage given = options_.load.storage;
  if (run_.full() || given != WeightStorage::as_stored) return {given};
  return {WeightStorage::as_stored, WeightStorage::bf16, WeightStorage::fp8, WeightStorage::int8,
          WeightStorage::nf4};
}

std::int64_t TextToImageTask::offloadable() const {
  const bool open = options_.load.offload_layers.value_or(0) == 0;
  return open ? pipeline::offloadable_blocks(*model_) : 0;
}

std::vector<std::int64_t> TextToImageTask::tiles() const {
  std::vector<std::int64_t> sides = {0};
  const PictureSize largest = largest_size();
  // Smaller ones show: their norms see little of the picture.
  constexpr std::int64_t kLeast = 128, kMost = 1024;
  for (std::int64_t side = kMost; side >= kLeast; side /= 2)
    if (side % model_->size_unit() == 0 && side < std::max(largest.width, largest.height))
      sides.push_back(side);
  return sides;
}

void TextToImageTask::check(const StageProgress& progress) {
  std::vector<data::Picture> all = pictures_.all();
  const std::size_t learnt = pictures_.instance.size(), own = all.size();
  for (const auto& others :
       {pictures_.of_class, class_pictures_.pictures, pictures_.validation_images})
    all.insert(all.end(), others.begin(), others.end());
  const std::vector<fs::path> files = data::paths_of(all);
  data::PictureCheckOptions how{.threads = at::get_num_threads()};
  std::atomic<std::size_t> without_alpha = 0;
  how.also = [&](std::size_t i, const io::Image& image) {
    if (all[i].use.masked_by_alpha && i < learnt && !io::read_alpha(files[i])) ++without_alpha;
    if (control_) data::check_control_file(options_.control.settings(), files[i], image);
    if (!all[i].use.mask.empty()) data::read_mask(all[i].use.mask, image.size());
  };
  std::vector<fs::path> bad;
  if (options_.data.skip_bad_pictures)
    how.bad = [&](std::size_t i, const Error& error) {
      if (i >= own) throw error;
      log(LogLevel::warning, "left out: " + error.where() + ": " + error.message());
      bad.push_back(files[i]);
    };
  if (progress)
    how.progress = [&](std::size_t done, std::size_t total) {
      return progress("checking pictures", done, total);
    };
  std::string folders = place_of_pictures(options_);
  if (!class_pictures_.pictures.empty()) folders += ", " + class_folder(options_, run_).string();
  const std::vector<std::string> hashes = data::check_pictures(files, folders, how);
  for (std::size_t i = 0; i < files.size(); ++i)
    if (!hashes[i].empty()) hashes_[files[i]] = hashes[i];
  if (!bad.empty()) leave_out(bad);
  if (without_alpha == 0) return;
  if (without_alpha >= plan_.masks)
    throw Error(ErrorCode::not_found, folders, "none of the pictures has an alpha channel",
                "leave `masks=alpha` out, or give `masks=files` with files of masks");
  plan_.masks -= without_alpha;
}

/// Pictures that cannot be read, of which a warning has been given.
void TextToImageTask::leave_out(const std::vector<fs::path>& files) {
  const auto is_bad = [&](const data::Picture& picture) {
    return std::ranges::find(files, picture.path) != files.end();
  };
  std::erase_if(pictures_.instance, is_bad);
  std::erase_if(pictures_.validation, is_bad);
  if (pictures_.instance.empty())
    throw Error(ErrorCode::bad_format, place_of_pictures(options_),
                "none of the pictures can be read", "the warnings say what is wrong with each");
  plan_.left_out = files;
  plan_.pictures = pictures_.instance.size();
  plan_.buckets = buckets();
  plan_.variants = caption_count(pictures_.instance);
}

Json TextToImageTask::settings() const {
  const diffusion::Prediction prediction = model_->noise_process()->prediction();
  TextToImageOptions options = options_;
  options.crop = crop_;  // with the model's own size
  Json settings = settings_of(options);
  settings.update({{"pictures", fingerprint(pictures_.instance)},
                   {"pictures' contents", contents_of(pictures_.instance, hashes_)},
                   {"class pictures", nullptr},
                   {"class pictures' contents", nullptr},
                   {"model", nullptr},
                   {"prediction", diffusion::prediction_name(prediction)},
                   {"precision", nn::precision_name(options_.load.precision)}});
  if (const std::string masks = mask_contents(pictures_.instance); !masks.empty())
    settings["training data"]["mask files"] = masks;
  if (options_.load.device.is_cuda()) settings["tf32"] = nn::tf32_allowed();
  if (control_) settings.update(control_->settings(pictures_, hashes_, samples_));
  return settings;
}

/// Those that were found, with those that are made, in the order in which a resumed run finds them.
std::vector<data::Picture> TextToImageTask::complete_class_pictures(
    const StageProgress& progress) const {
  const DataParallel& ranks = run_.trainer.data_parallel;
  if (options_.class_prompt.empty()) return pictures_.of_class;
  std::vector<data::Picture> pictures;
  ranks.writer_first(model_->options().device, [&] {
    if (ranks.writes() && plan_.class_to_make > 0) make_class_pictures(progress);
    pictures = class_pictures_of(options_, run_).pictures;
  });
  if (pictures.size() != static_cast<std::size_t>(options_.class_count))
    throw Error(ErrorCode::not_found, class_folder(options_, run_).string(),
                "class pictures are missing", "rank 0 makes them: all ranks need its folder");
  return pictures;
}

void TextToImageTask::make_class_pictures(const StageProgress& progress) const {
  const std::size_t missing = plan_.class_to_make;
  pipeline::GenerateRequest request;
  request.prompt = options_.class_prompt;
  request.size = crop_.size;
  request.clip_skip = options_.loss.clip_skip;
  request.steps = samples_.steps;
  request.guidance = samples_.guidance;
  train::make_class_pictures(*model_, request, class_folder(options_, run_), missing, run_.seed,
                             [&](std::size_t done) {
                               return !progress || progress("making class pictures", done, missing);
                             });
}

TrainingSet TextToImageTask::encode(const std::vector<data::Picture>& pictures,
                                    const CropOptions& crop, const std::string& stage,
                                    const StageProgress& progress) const {
  std::size_t done = 0;
  const auto signals = control_ ? std::optional(options_.control.settings()) : std::nullopt;
  return encode_pictures(
      *model_, pictures, crop, options_.cache,
      [&] { return !progress || progress(stage, ++done, pictures.size()); },
      signals ? &*signals : nullptr, control_ && control_->network().sees_latents(),
      options_.data.mask);
}

void TextToImageTask::prepare_validation(const StageProgress& progress) {
  std::vector<io::Image> sources;
  for (const data::Picture& picture : pictures_.validation)
    sources.push_back(data::covering_crop(io::read_image(picture.path), crop_.size).image);
  std::vector<data::Picture> alike = pictures_.validation;  // compared with each other: one size
  for (data::Picture& picture : alike) {
    picture.caption = picture.shown_caption();
    picture.use = {};
  }
  control_->validate_on(
      encode(alike, {.size = crop_.size}, "encoding validation pictures", progress),
      std::move(sources), samples_);
}

Json TextToImageTask::prepare(const Learners& learners, const StageProgress& progress) {
  model_->code_in_tiles(run_.savings.tile);
  if (run_.savings.offloaded > 0) pipeline::offload_denoiser(*model_, run_.savings.offloaded);
  const std::vector<data::Picture> class_pictures = complete_class_pictures(progress);
  const DataParallel& ranks = run_.trainer.data_parallel;
  TrainingSet prior, instance;
  const auto encode_all = [&] {
    if (!class_pictures.empty())
      prior = encode(class_pictures_for(buckets(), class_pictures, crop_.size), crop_,
                     "encoding class pictures", progress);
    instance = encode(pictures_.instance, crop_, "encoding pictures", progress);
  };
  if (options_.cache.empty())
    encode_all();  // nothing that other ranks could read
  else
    ranks.writer_first(model_->options().device, encode_all);
  loss_ = std::make_unique<DiffusionLoss>(*model_, std::move(instance), std::move(prior),
                                          loss_options(learners));
  if (!pictures_.validation.empty() && ranks.writes()) prepare_validation(progress);
  if (!pictures_.validation_images.empty() && ranks.writes())
    validation_ = encode(pictures_.validation_images, {.size = crop_.size},
                         "encoding validation pictures", progress);
  const pipeline::ModelDescription& model = model_->description();
  return {{"model", model.hash_files.empty() ? "" : pipeline::model_hash(model)},
          {"class pictures", fingerprint(class_pictures)},
          {"class pictures' contents", contents_of(class_pictures, hashes_)}};
}

at::Tensor TextToImageTask::loss(std::int64_t micro_batch, const BatchPart& part) const {
  nn::RecomputedBlocks recomputed = run_.savings.recomputed;
  recomputed.all = recomputed.all || options_.gradient_checkpointing;
  const nn::GradientCheckpointing checkpointing(std::move(recomputed));
  return (*loss_)(micro_batch, part);  // the backward pass may repeat parts of it
}

std::vector<std::string> TextToImageTask::example_names(std::int64_t micro_batch) const {
  return loss_->example_names(micro_batch);
}

bool TextToImageTask::has_samples() const {
  return control_ ? !pictures_.validation.empty() : !rows_of(samples_).empty();
}

ObservationRules TextToImageTask::observation_rules() const {
  return {.what = "sample pictures",
          .score_file = control_ ? "control.csv" : "scores.csv",
          .any = has_samples() || !pictures_.validation_images.empty(),
          .pictures = has_samples(),
          .needed = false,
          .base_first = true};
}

Observation TextToImageTask::observe(std::int64_t step) const {
  if (control_) return control_->observe(step);
  Observation seen;
  if (has_samples()) seen.pictures = sample_sheet(*model_, samples_);
  if (!validation_.pictures.empty())
    seen.scores.push_back({"validation loss", /*higher_is_better=*/false,
                           validation_loss(*model_, validation_,
                                           {.seed = samples_.seed,
                                            .clip_skip = options_.loss.clip_skip,
                                            .guidance = options_.loss.guidance})});
  return seen;
}

void TextToImageTask::save_model(const fs::path& folder, at::ScalarType precision) const {
  model_->save(folder, {.replacements = pipeline::trained_tensors(*model_), .dtype = precision});
}

void TextToImageTask::complete(adapt::AdapterFileInfo& info) const {
  info.extra.emplace("modelspec.resolution", crop_.size.text());
  info.base_kind = plan_.model_kind;
  describe_pictures(pictures_, info.extra);
  if (control_) control_->complete(info);
}

std::string TextToImageTask::companion() const {
  return control_ && control_->is_controlnet() ? "controlnet" : "";
}

void TextToImageTask::save_companion(const fs::path& folder, at::ScalarType precision) const {
  control_->save(folder, precision);
}

void TextToImageTask::describe(Report& report, const std::vector<ScoreRow>& scores) const {
  report.summary.emplace_back("pictures", std::to_string(plan_.pictures));
  report.summary.emplace_back("model", plan_.model_kind + ", " + model_->description().name);
  if (control_) add_scores(report, scores, options_.control.metric.name);
}

std::string TextToImageTask::picture_caption() const {
  if (control_ && !pictures_.validation.empty()) return "per row: source, control signal, result";
  std::vector<std::string> texts;
  for (const SamplePrompt& row : rows_of(samples_)) texts.push_back(row.text);
  return join(texts, "\n");
}

}  // namespace ringlet::train
