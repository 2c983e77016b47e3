#include "ringlet/train/run.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/initial_adapter.h"
#include "ringlet/train/memory_error.h"
#include "ringlet/train/not_finite.h"
#include "ringlet/train/option_list.h"
#include "ringlet/train/part_rates.h"
#include "ringlet/train/run_folder.h"
#include "ringlet/train/run_metadata.h"
#include "ringlet/train/stochastic_rounding.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWhere = "training";

void check_positive(const char* field, double value) {
  if (!(value > 0.0 && value <= std::numeric_limits<double>::max()))
    throw Error(ErrorCode::invalid_argument, Field(field), "must be larger than 0");
}

/// The rows of a part among those that the network sees of the whole; none for the whole.
adapt::BatchRows rows_of(const BatchPart& part, std::int64_t rows_per_example) {
  if (part.end - part.begin == part.of) return {};
  std::vector<at::Tensor> numbers;
  for (std::int64_t i = 0; i < rows_per_example; ++i)
    numbers.push_back(at::arange(i * part.of + part.begin, i * part.of + part.end, at::kLong));
  return {at::cat(numbers), rows_per_example * part.of};
}

/// The settings but for those that Task::prepare finds.
Json without_later_ones(Json settings, const Json& own) {
  for (const auto& [key, value] : own.items())
    if (value.is_null()) settings.erase(key);
  return settings;
}

/// Layers and parameters by what the layers are of.
std::vector<RunPlan::Group> groups_of(const adapt::AdapterSet& set) {
  std::map<std::string, std::string> names;  // of groups, by layer
  std::map<std::string, RunPlan::Group> groups;
  for (const adapt::AdapterSet::Entry& entry : set.entries()) {
    const std::string group = adapt::layer_group(entry.target);
    names.emplace(entry.target.full_name(), group);
    groups[group].name = group;
    ++groups[group].layers;
  }
  for (const auto& [parameter, tensor] : set.parameters()) {
    std::string layer = parameter;
    while (!names.contains(layer) && layer.find('.') != std::string::npos)
      layer.erase(layer.rfind('.'));
    if (const auto found = names.find(layer); found != names.end())
      groups[found->second].parameters += tensor.numel();
  }
  std::vector<RunPlan::Group> rows;
  for (auto& [name, group] : groups) rows.push_back(std::move(group));
  return rows;
}

}  // namespace

void check_options(const RunOptions& o) {
  if (o.out.empty()) throw Error(ErrorCode::invalid_argument, Field("out"), "a folder is needed");
  RunOptions described = o;
  OptionList list;
  describe(list, described.trainer);
  describe(list, described, "", "");
  list.check();
  check_positive("batch_size", static_cast<double>(o.batch_size));
  if (o.epochs) check_positive("epochs", *o.epochs);
  check_positive("learning_rate", o.trainer.learning_rate.peak);
  if (o.savings.parts < 1 || o.savings.parts > o.batch_size)
    throw Error(ErrorCode::invalid_argument, kWhere,
                "a batch of " + std::to_string(o.batch_size) + " has no " +
                    std::to_string(o.savings.parts) + " parts");
  check_adapter_options(o);
  check_best(o.best, o.observe_every, o.trainer.data_parallel.count);
  if (o.trained_precision != at::kFloat && !o.full())
    throw Error(ErrorCode::invalid_argument, Field("trained_precision"), "adapters learn in fp32",
                "it is for `method=full`");
  refuse_other_run(o.out, o.resume);
}

void check_base_storage(nn::WeightStorage storage, const RunOptions& options) {
  if (options.full() && storage != nn::WeightStorage::as_stored)
    throw Error(ErrorCode::invalid_argument, Field("base_storage"),
                "`method=full` trains the weights themselves, which are kept in fp32",
                "leave it out, or train an adapter, for example `method=lora(rank=4)`");
}

std::string base_storage_text(nn::WeightStorage storage) {
  if (storage == nn::WeightStorage::as_stored) return "";
  return ", base in " + nn::weight_storage_name(storage);
}

Run::Run(RunOptions options, const OpenTask& open, const RunObserver& observer)
    : options_(std::move(options)) {
  nn::with_ringlet_errors(kWhere, [&] {
    // Other ranks may come when the first one has the folder already.
    if (writes() && !options_.out.empty()) RunLock::refuse_held(options_.out);
    check_options(options_);
    find_checkpoint();
    take_recorded_savings();
    if (options_.memory_limit > 0 && !checkpoint_)
      open_within_limit(open);
    else
      open_task(open);
    make_plan();
    task_->check(observer.progress);  // after all that takes less time
    settings_ = settings();
    check_resume();
  });
}

void Run::open_task(const OpenTask& open) {
  adapters_.reset();
  task_.reset();  // never two in memory
  return_free_memory();
  plan_ = {};
  task_ = open(options_);
  if (options_.adapts()) build_adapters();
  if (options_.trained_precision == at::kBFloat16) keep_in_bf16(trainables(), task_->precision());
  optimizer_bytes_ = 0;
  for (const Trainable& one : trainables()) {
    plan_.parameters += one.value.numel();
    optimizer_bytes_ += options_.trainer.optimizer.state_bytes(one.value.sizes());
  }
  if (options_.savings.parts > 1 && !task_->divisible())
    throw Error(ErrorCode::invalid_argument, kWhere,
                "the loss of these batches cannot be computed in parts");
}

void Run::build_adapters() {
  const adapt::Components components = task_->components();
  std::vector<adapt::Target> whole;
  for (const std::string& name : task_->new_layers())
    for (adapt::Target& target : adapt::select_targets(components, {.include = {name}}))
      whole.push_back(std::move(target));
  if (options_.init_adapter.empty()) {
    std::vector<adapt::Target> targets =
        adapt::select_targets(components, task_->targets(options_.targets));
    std::erase_if(targets, [&](const adapt::Target& target) {
      return std::ranges::find(whole, target.layer, &adapt::Target::layer) != whole.end();
    });
    adapters_.emplace(options_, targets, options_.seed, whole);
  } else {
    initial_ = start_from(adapters_, options_, components, options_.seed, whole);
  }
  plan_.budget = adapters_->budget();
  plan_.layers = adapters_->set().entries().size();
  plan_.new_layers = whole.size();
  plan_.groups = groups_of(adapters_->set());
}

std::vector<Trainable> Run::trainables() const {
  std::vector<Trainable> found;
  if (adapters_) found = train::trainables(adapters_->set());
  for (Trainable& one : task_->trainables()) found.push_back(std::move(one));
  return found;
}

Learners Run::learners() const {
  return {.adapters = adapters_ ? &adapters_->set() : nullptr,
          .parameters = plan_.parameters,
          .optimizer_bytes = optimizer_bytes_};
}

void Run::make_plan() {
  plan_.method = learning_text(adapters_ ? Learning(adapters_->method()) : options_.learning);
  with_rates(trainables(), options_.trainer);  // refuses wrong ones early
  const double per_step = static_cast<double>(options_.trainer.gradient_accumulation *
                                              options_.batch_size * ranks().count);
  const auto per_epoch = static_cast<double>(task_->epoch_size());
  if (options_.epochs)
    options_.trainer.steps =
        std::max<std::int64_t>(1, std::llround(std::ceil(*options_.epochs * per_epoch / per_step)));
  plan_.steps = options_.trainer.steps;
  plan_.epochs = static_cast<double>(plan_.steps) * per_step / per_epoch;
  if (checkpoint_) plan_.first_step = CheckpointFolder::load(*checkpoint_).step;
  if (options_.memory_limit == 0) task_->fit(learners());
  const std::optional<MemoryNeed> need = known_need(options_.savings);
  if (!need) return;
  plan_.expected_bytes = need->peak(options_.savings.recomputed);
  if (checkpoint_ && options_.memory_limit > 0 && plan_.expected_bytes > options_.memory_limit)
    log(LogLevel::warning, "the run resumes as it began: about " +
                               human_bytes(plan_.expected_bytes) + " of memory, above the limit");
}

void Run::find_checkpoint() {
  checkpoint_.reset();
  if (options_.resume) checkpoint_ = CheckpointFolder(options_.out / kCheckpoints, 1).latest();
}

/// From now on nobody else trains in the folder; what somebody has done there since the plan was
/// made counts.
std::unique_ptr<RunLock> Run::take_folder() {
  if (!writes()) return nullptr;
  auto lock = std::make_unique<RunLock>(options_.out);
  refuse_other_run(options_.out, options_.resume);
  find_checkpoint();
  return lock;
}

Json Run::settings() const {
  const std::int64_t sharing = ranks_of_batch();
  Json settings = {{"method", plan_.method},
                   {"parameters", plan_.parameters},
                   {"batch size", options_.batch_size * sharing},
                   {"seed", options_.seed}};
  settings.update(settings_of(options_));
  settings.update(settings_of(options_.trainer));
  if (sharing > 1) settings["gradient accumulation"] = options_.trainer.gradient_accumulation;
  settings.update(task_->settings());
  if (options_.trained_precision != at::kFloat)
    settings["trained precision"] = nn::precision_name(options_.trained_precision);
  if (!initial_.is_null()) settings["initial adapter"] = initial_;
  if (recorded_savings_) {
    if (!recorded_savings_->is_null()) settings[kSavingsSetting] = *recorded_savings_;
  } else if (options_.savings.any()) {
    MemorySavings savings = options_.savings;
    savings.parts *= sharing;
    settings[kSavingsSetting] = to_json(savings);
  }
  return settings;
}

/// Before anything is made. Trainer::resume compares all, when all is known.
void Run::check_resume() const {
  if (!checkpoint_) return;
  const TrainState state = CheckpointFolder::load(*checkpoint_);
  check_settings(without_later_ones(state.settings, settings_),
                 without_later_ones(settings_, settings_), checkpoint_->string());
}

LossFunction Run::loss_function() const {
  return [this, sharing = ranks_of_batch()](std::int64_t number) {
    const std::int64_t parts = options_.savings.parts * sharing, micro_batch = number / parts;
    const BatchPart part =
        BatchPart::of_batch(options_.batch_size * sharing, number % parts, parts);
    const auto loss = [&] {
      if (!adapters_) return task_->loss(micro_batch, part);
      adapters_->begin_step(micro_batch, rows_of(part, task_->rows_per_example()));
      return adapters_->set().pass(
          [&] { return adapters_->penalised(task_->loss(micro_batch, part), part.share()); });
    };
    // The trainer takes the mean over ranks, of which each has only a share.
    return sharing == 1 ? loss() : loss() * static_cast<double>(sharing);
  };
}

void Run::observe(Trainer& trainer, RunLog& log, std::int64_t step) {
  const ObservationRules rules = task_->observation_rules();
  if (adapters_) adapters_->end_steps();  // nothing is dropped
  try {
    const AveragedParameters averaged(trainer);
    const at::NoGradGuard no_grad;
    const Observation seen = task_->observe(step);
    if (!seen.scores.empty()) {
      score_file_->add(step, seen.scores);
      latest_scores_ = seen.scores;
    }
    if (seen.pictures) log.add_samples(step, *seen.pictures);
  } catch (const Error& error) {
    if (rules.needed) throw;
    // Pictures are for people: a run whose state is sound is not ended by one.
    ringlet::log(LogLevel::warning, "no " + rules.what + ": " + error.what());
  }
  follow_best(trainer, step);
}

/// Keeps a step that is the best so far, and ends a run that has not had one for long.
void Run::follow_best(Trainer& trainer, std::int64_t step) {
  const auto file = best();
  if (!file) return;
  BestScore best(options_.best);
  if (score_file_->rows().empty()) best.add(step, {});  // says that there are no scores
  bool better = false;
  for (const ScoreRow& row : scores()) better = best.add(row.step, row.scores) && row.step == step;
  const AveragedParameters averaged(trainer);
  if (better && options_.full()) task_->save_model(*file, options_.save_precision);
  if (better && adapters_) save_adapters(*file, step, settings_);
  if (!best.ends() || step == options_.trainer.steps) return;
  ringlet::log(LogLevel::info, "step " + std::to_string(step) + ": " + best.text());
  trainer.finish();
}

bool Run::train(Trainer& trainer, RunLog& log, const StepObserver& observer) {
  const std::int64_t steps = options_.trainer.steps, every = options_.observe_every;
  const std::int64_t save_every = options_.trainer.checkpoint_every;
  const std::int64_t first = trainer.steps_done();
  const ObservationRules rules = task_->observation_rules();
  if (!rules.any && !options_.best.name.empty())
    throw Error(ErrorCode::invalid_argument, Field("best_by"), "this run measures no scores",
                "give `validation_images`, or leave it out");
  const bool observes = rules.any && writes();
  const auto due = [&](std::int64_t step) {
    return observes && (step == steps || (every > 0 && step % every == 0));
  };
  const auto observe_alone = [&](std::int64_t step) {
    ranks().alone([&] { observe(trainer, log, step); });
  };
  if (observes && rules.base_first && first == 0) observe_alone(0);
  if (adapters_) adapters_->set().attach();
  if (observes && !rules.base_first && first == 0) observe_alone(0);
  // One that an interruption after the checkpoint has prevented. Scores cost little.
  if (first > 0 && due(first) && !(rules.pictures && log.has_samples(first))) observe_alone(first);
  return_free_memory();  // of preparing and observing
  RunControl control(options_.out, writes());
  const bool finished = trainer.run(
      [&](const StepResult& step) {
        log.add(step);
        seconds_ += step.seconds;
        const bool interrupted = observer && !observer(step);
        control.look();
        const bool proceed = !interrupted && !control.asked(RunRequest::stop);
        if (control.asked(RunRequest::save)) trainer.ask_for_checkpoint();
        if (!proceed || step.step == steps || control.asked(RunRequest::save) ||
            (save_every > 0 && step.step % save_every == 0))
          log.flush();
        return proceed;
      },
      [&](std::int64_t step) {
        if (due(step) || (observes && control.asked(RunRequest::sample))) observe_alone(step);
        control.answer_all(step, observes ? rules.what : "");
      });
  if (!finished) control.answer_all(trainer.steps_done(), "");
  return finished;
}

/// Says what the step needs when there is too little memory for it.
bool Run::train_within_memory(Trainer& trainer, RunLog& log, const StepObserver& observer) {
  try {
    return nn::with_ringlet_errors(kWhere, [&] { return train(trainer, log, observer); });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::out_of_memory) throw;
    const std::vector<Trainable> learners = trainables();
    const at::Device device = learners.empty() ? at::kCPU : learners.front().value.device();
    throw memory_error(
        error, options_,
        {plan_.expected_bytes, nn::peak_memory(device), task_->example_size(), device.is_cuda()});
  }
}

fs::path Run::result() const {
  if (options_.adapts()) return options_.out / "adapter.safetensors";
  return options_.out / (options_.full() ? "model" : task_->companion());
}

std::optional<fs::path> Run::best() const {
  if (options_.best.name.empty()) return std::nullopt;
  return options_.out / (options_.adapts() ? "best.safetensors" : "best");
}

std::optional<fs::path> Run::companion() const {
  const std::string name = task_->companion();
  if (name.empty()) return std::nullopt;
  return options_.out / name;
}

void Run::save(Trainer& trainer, const Json& settings) const {
  const AveragedParameters averaged(trainer);
  if (options_.full()) task_->save_model(result(), options_.save_precision);
  if (const auto folder = companion()) task_->save_companion(*folder, options_.save_precision);
  if (adapters_) save_adapters(result(), trainer.steps_done(), settings);
}

void Run::save_adapters(const fs::path& file, std::int64_t steps, const Json& settings) const {
  Json training = settings;
  training["steps"] = steps;
  training["ringlet"] = kVersion;
  adapt::AdapterFileInfo info;
  info.base_hash = json_value<std::string>(settings, "model", "", kWhere);
  info.training = training.dump();
  info.extra = {{"modelspec.title", run_title(options_.out)}};
  info.storage = options_.save_precision;
  task_->complete(info);
  keep_metadata(info, options_.metadata);
  adapt::save_adapter(file, adapters_->set(), info);
}

std::vector<ScoreRow> Run::scores() const {
  std::vector<ScoreRow> rows;
  if (!score_file_) return rows;
  for (const MeasuredStep& measured : score_file_->rows()) {
    ScoreRow& row = rows.emplace_back(ScoreRow{measured.step, latest_scores_});
    row.scores.resize(measured.values.size());
    for (std::size_t i = 0; i < row.scores.size(); ++i) {
      row.scores[i].name = score_file_->columns()[i];
      row.scores[i].value = measured.values[i];
    }
  }
  return rows;
}

Report Run::report(const Trainer& trainer, const Json& settings) const {
  Report report;
  report.title = "ringlet: " + run_title(options_.out);
  report.summary = {{"method", plan_.method},
                    {"parameters", human_count(plan_.parameters)},
                    {"steps", std::to_string(trainer.steps_done())},
                    {"skipped steps", std::to_string(trainer.skipped())}};
  report.settings = setting_lines(settings);
  task_->describe(report, scores());
  return report;
}

bool Run::run(const RunObserver& observer) {
  return nn::with_ringlet_errors(kWhere, [&] {
    const std::unique_ptr<RunLock> lock = take_folder();
    Json settings = settings_;
    ranks().alone([&] { settings.update(task_->prepare(learners(), observer.progress)); });
    TrainerOptions loop = options_.trainer;
    loop.checkpoint_folder = options_.out / kCheckpoints;
    loop.settings = settings_ = settings;
    if (adapters_) loop.after_update = [this] { adapters_->end_update(); };
    loop.loss_scaling = task_->precision() == at::kHalf;
    loop.micro_batch_parts = options_.savings.parts;
    loop.explain_not_finite = [this](std::int64_t number) {
      const std::int64_t sharing = ranks_of_batch(), parts = options_.savings.parts * sharing;
      return not_finite_text(
          *task_, number / parts,
          BatchPart::of_batch(options_.batch_size * sharing, number % parts, parts),
          [&] { loss_function()(number); });
    };
    Trainer trainer(trainables(), loss_function(), std::move(loop));
    if (checkpoint_) trainer.resume(*checkpoint_);
    check_ranks(trainer, settings);
    RunLog log(options_.out, trainer.steps_done(), writes());
    score_file_.emplace(options_.out / task_->observation_rules().score_file, trainer.steps_done());
    const bool finished = train_within_memory(trainer, log, observer.step);
    ranks().alone([&] {
      if (finished && writes()) save(trainer, settings);
      log.write_report(report(trainer, settings), task_->picture_caption());
    });
    return finished;
  });
}

}  // namespace ringlet::train
