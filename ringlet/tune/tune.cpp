#include "ringlet/tune/tune.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "ringlet/adapt/adapter_file.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/data/picture_check.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/epoch_order.h"
#include "ringlet/train/run_folder.h"
#include "ringlet/train/score_file.h"
#include "ringlet/tune/examples.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kComponent = "model";
constexpr const char* kWeights = "model.safetensors";

void check_options(const TuneOptions& o) {
  train::check_adapter_options(o);
  if (o.out.empty()) throw Error(ErrorCode::invalid_argument, Field("out"), "a folder is needed");
  const auto positive = [](const Field& option, double value) {
    if (!(value > 0.0)) throw Error(ErrorCode::invalid_argument, option, "must be larger than 0");
  };
  positive(Field("steps"), static_cast<double>(o.trainer.steps));
  positive(Field("batch_size"), static_cast<double>(o.batch_size));
  positive(Field("gradient_accumulation"), static_cast<double>(o.trainer.gradient_accumulation));
  positive(Field("learning_rate"), o.trainer.learning_rate.peak);
  if (o.evaluate_every < 0)
    throw Error(ErrorCode::invalid_argument, Field("evaluate_every"), "must not be negative");
  if (!o.full() && o.method() == nullptr)
    throw Error(ErrorCode::invalid_argument, Field("method"), "none leaves nothing to learn",
                "name a method, or full");
  train::refuse_other_run(o.out, o.resume);
}

std::vector<std::string> names_of(const std::vector<Score>& scores) {
  std::vector<std::string> names;
  for (const Score& score : scores) names.push_back(score.name);
  return names;
}

}  // namespace

Tune::Tune(TuneOptions options) : options_(std::move(options)) {
  nn::with_ringlet_errors("tuning", [&] { prepare(); });
}

void Tune::prepare() {
  check_options(options_);
  options_.examples.weights.trainable = options_.full();
  task_ = open_task(options_.task, options_.examples);
  if (!options_.full()) build_adapters();
  make_plan();
  check_pictures();
}

/// Damaged pictures are found before anything is trained, and exchanged ones by a run that goes on.
void Tune::check_pictures() {
  const std::vector<fs::path> files = task_->pictures();
  if (files.empty()) return;
  picture_contents_ = sha256_text(join(data::check_pictures(files, options_.examples.data.string(),
                                                            {.threads = at::get_num_threads()})));
}

void Tune::build_adapters() {
  const adapt::Components components = {{kComponent, &task_->network()}};
  if (options_.targets.presets.empty() && options_.targets.include.empty())
    options_.targets.include = task_->usual_targets();
  std::vector<adapt::Target> whole;
  for (const std::string& name : task_->new_layers()) {
    const std::string full = std::string(kComponent) + "." + name;
    for (adapt::Target& target : adapt::select_targets(components, {.include = {full}}))
      whole.push_back(std::move(target));
  }
  std::vector<adapt::Target> targets = adapt::select_targets(components, options_.targets);
  std::erase_if(targets, [&](const adapt::Target& target) {
    return std::ranges::find(whole, target.layer, &adapt::Target::layer) != whole.end();
  });
  adapters_.emplace(options_, targets, options_.seed, whole);
  options_.learning = adapters_->method();
  plan_.budget = adapters_->budget();
  plan_.layers = targets.size() + whole.size();
  plan_.new_layers = whole.size();
}

std::vector<train::Trainable> Tune::trainables() const {
  return adapters_ ? train::trainables(adapters_->set()) : train::trainables(task_->network());
}

void Tune::make_plan() {
  plan_.network = task_->description();
  plan_.examples = task_->examples();
  plan_.held_out = task_->held_out();
  plan_.method = train::learning_text(options_.learning);
  plan_.optimizer = options_.trainer.optimizer.name;
  for (const train::Trainable& one :
       train::with_rate_factors(trainables(), options_.trainer.rate_factors))
    plan_.parameters += one.value.numel();
  plan_.epochs = static_cast<double>(options_.trainer.steps *
                                     options_.trainer.gradient_accumulation * options_.batch_size) /
                 static_cast<double>(plan_.examples);
  if (!options_.resume) return;
  const auto latest = train::CheckpointFolder(options_.out / train::kCheckpoints, 1).latest();
  if (latest) plan_.first_step = train::CheckpointFolder::load(*latest).step;
}

Json Tune::settings() const {
  Json settings = {{"task", options_.task},
                   {"network", plan_.network},
                   {"method", plan_.method},
                   {"parameters", plan_.parameters},
                   {"examples", plan_.examples},
                   {"held out", plan_.held_out},
                   {"data", fingerprint(options_.examples.data)},
                   {"eval data", fingerprint(options_.examples.eval_data)},
                   {"precision", nn::precision_name(options_.examples.weights.dtype)},
                   {"length", options_.examples.length},
                   {"batch size", options_.batch_size},
                   {"seed", options_.seed}};
  if (!picture_contents_.empty()) settings["pictures' contents"] = picture_contents_;
  if (!options_.examples.loss.empty()) settings["loss"] = options_.examples.loss;
  settings.update(train::settings_of(options_));
  settings.update(train::settings_of(options_.trainer));
  return settings;
}

at::Tensor Tune::loss(std::int64_t micro_batch) const {
  std::vector<std::size_t> order(task_->examples());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::vector<std::size_t> rows =
      train::batch_rows(order, Random(options_.seed), "examples", micro_batch, options_.batch_size);
  if (adapters_) adapters_->begin_step(micro_batch);
  const at::Tensor loss = task_->loss(rows);
  return adapters_ ? adapters_->penalised(loss) : loss;
}

void Tune::measure(train::Trainer& trainer, std::int64_t step) {
  if (!options_.trainer.data_parallel.writes()) return;
  if (adapters_) adapters_->end_steps();
  const auto scores_now = [&] {
    const train::AveragedParameters averaged(trainer);
    const at::NoGradGuard no_grad;
    return task_->evaluate();
  };
  const ScoreRow row{step, scores_now()};
  train::ScoreFile file(options_.out / "scores.csv", names_of(row.scores), step);
  std::vector<double> values;
  for (const Score& score : row.scores) values.push_back(score.value);
  file.add(step, values);
  // All from the file: a run that goes on has some from before its interruption.
  scores_.clear();
  for (const train::MeasuredStep& measured : file.rows()) {
    ScoreRow& kept = scores_.emplace_back(ScoreRow{measured.step, row.scores});
    for (std::size_t i = 0; i < kept.scores.size(); ++i) kept.scores[i].value = measured.values[i];
  }
}

bool Tune::train(train::Trainer& trainer, train::RunLog& log, const train::StepObserver& observer) {
  const std::int64_t steps = options_.trainer.steps, every = options_.evaluate_every;
  const std::int64_t save_every = options_.trainer.checkpoint_every;
  if (adapters_) adapters_->set().attach();
  if (trainer.steps_done() == 0) measure(trainer, 0);
  return trainer.run(
      [&](const train::StepReport& step) {
        log.add(step);
        seconds_ += step.seconds;
        const bool go_on = !observer || observer(step);
        if (!go_on || step.step == steps || (save_every > 0 && step.step % save_every == 0))
          log.flush();
        return go_on;
      },
      [&](std::int64_t step) {
        if (step != steps && every > 0 && step % every == 0) measure(trainer, step);
      });
}

fs::path Tune::result() const {
  return options_.out / (options_.full() ? "model" : "adapter.safetensors");
}

void Tune::save_model() const {
  make_folder(result());
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : task_->network().tensors)
    tensors.emplace(
        name, tensor.is_floating_point() ? tensor.detach().to(options_.save_precision) : tensor);
  for (const auto& [name, content] : task_->model_files()) {
    make_folder((result() / name).parent_path());
    write_file_atomically(result() / name, content);
  }
  io::save_tensors(result() / kWeights, tensors);
}

void Tune::save_result(train::Trainer& trainer) const {
  if (!options_.trainer.data_parallel.writes()) return;
  const train::AveragedParameters averaged(trainer);
  if (options_.full()) save_model();
  if (adapters_) {
    Json training = options_.trainer.settings;
    training["steps"] = trainer.steps_done();
    training["ringlet"] = kVersion;
    adapt::AdapterFileInfo info;
    info.base_hash = training.at("model").get<std::string>();
    info.training = training.dump();
    info.extra = {{"modelspec.title", train::run_title(options_.out)}};
    info.storage = options_.save_precision;
    for (const auto& [layer, start] : task_->made_layers())
      info.new_layers.emplace(std::string(kComponent) + "." + layer, start);
    const auto files = task_->model_files();
    if (const auto config = files.find("config.json"); config != files.end())
      info.network_config = config->second;
    adapt::save_adapter(result(), adapters_->set(), info);
  }
}

train::Report Tune::report(const train::Trainer& trainer) const {
  train::Report report;
  report.title = "ringlet: " + train::run_title(options_.out);
  report.summary = {{"network", plan_.network},
                    {"method", plan_.method},
                    {"parameters", human_count(plan_.parameters)},
                    {"steps", std::to_string(trainer.steps_done())},
                    {"examples", std::to_string(plan_.examples) + ", held out " +
                                     std::to_string(plan_.held_out)}};
  report.settings = train::setting_lines(options_.trainer.settings);
  if (scores_.empty()) return report;
  for (std::size_t i = 0; i < scores_.front().scores.size(); ++i) {
    const Score& before = scores_.front().scores[i];
    report.summary.emplace_back(before.name,
                                eval::short_number(before.value) + " before, " +
                                    eval::short_number(scores_.back().scores[i].value) + " after");
    train::ReportSeries series{before.name, {}};
    for (const ScoreRow& row : scores_) series.values.emplace_back(row.step, row.scores[i].value);
    report.charts.push_back({before.name + " of held-out examples", {series}});
  }
  return report;
}

bool Tune::run(const train::StepObserver& observer) {
  return nn::with_ringlet_errors("tuning", [&] { return run_stages(observer); });
}

bool Tune::run_stages(const train::StepObserver& observer) {
  options_.trainer.checkpoint_folder = options_.out / train::kCheckpoints;
  options_.trainer.settings = settings();
  const fs::path weights = options_.examples.model / kWeights;
  options_.trainer.settings["model"] = fs::exists(weights) ? sha256_file(weights) : "";
  train::Trainer trainer(
      trainables(), [this](std::int64_t micro_batch) { return loss(micro_batch); },
      options_.trainer);
  if (options_.resume)
    if (const auto latest = train::CheckpointFolder(options_.trainer.checkpoint_folder, 1).latest())
      trainer.resume(*latest);
  train::RunLog log(options_.out, trainer.steps_done(), options_.trainer.data_parallel.writes());
  const bool finished = train(trainer, log, observer);
  if (finished) {
    measure(trainer, trainer.steps_done());
    save_result(trainer);
  }
  log.write_report(report(trainer), "");
  return finished;
}

}  // namespace ringlet::tune
