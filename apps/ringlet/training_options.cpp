#include "training_options.h"

#include <array>
#include <cstdio>
#include <random>
#include <utility>

#include <ATen/Parallel.h>

#include "options.h"
#include "rank_process.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/train/run_folder.h"

namespace ringlet::app {
namespace {

constexpr std::array<std::pair<const char*, at::ScalarType>, 2> kTrainedPrecisions = {
    {{"fp32", at::kFloat}, {"bf16", at::kBFloat16}}};

train::Learning parse_learning(const std::string& method) {
  if (method == "full") return train::AllWeights{};
  if (method == "none") return train::NoWeights{};
  return adapt::parse_method(method);
}

}  // namespace

void TrainingOptions::add_method(OptionList& list, train::AdapterTrainingOptions& adapters,
                                 const char* method_help, const char* layers,
                                 const char* usual_layers) {
  list.add("method", method, method_help).repeated();
  train::describe(list, adapters, layers, usual_layers);
}

void TrainingOptions::check_given(const CLI::App& app, const train::RunOptions& run) {
  if (run.epochs)
    refuse_given(app, {"--steps"}, "--epochs says how long the run is", "leave one of them out");
  if (!run.init_adapter.empty())
    refuse_given(app, {"--method"}, "the method is that of the file of --init-adapter",
                 "leave it out");
}

void TrainingOptions::add_loop(OptionList& list, train::RunOptions& run, const char* batch_help) {
  train::describe(list, run.trainer);
  list.add("epochs", run.epochs,
           "How often each example is seen, in place of `steps`; rounded up to whole steps")
      .within(Range::above(0));
  list.add("batch_size", run.batch_size, batch_help).within(Range::above(0)).repeated();
  list.add("learning_rate", learning_rate, "Peak")
      .within(Range::above(0))
      .or_else("1e-4; 1e-5 for --method full; 1 for prodigy and a relative step of adafactor")
      .repeated();
  train::describe(list, optimizer, numbers);
  list.add(
          "memory_limit", byte_size("memory_limit", memory_limit),
          "The most memory that the run may take, for example 8G: of this process on the CPU, "
          "otherwise of the device. What is computed again in the backward pass, parts of batches, "
          "tiles, and last the base's storage and blocks in host memory are chosen so that it fits")
      .or_else("no limit");
  list.add("seed", seed, "Random seed").or_else("random").repeated();
}

void TrainingOptions::add_output(OptionList& list, train::RunOptions& run) {
  list.add("out", run.out, "Folder for the adapter, checkpoints, logs and report").required();
  list.add("trained_precision",
           choice("trained_precision", run.trained_precision, kTrainedPrecisions),
           "--method full: how the weights that learn are kept; bf16 needs --precision bf16 and "
           "rounds updates stochastically")
      .repeated();
  list.add("save_precision", choice("save_precision", run.save_precision, nn::kPrecisionNames),
           "Type of the numbers that are saved");
  list.add("metadata", choice("metadata", run.metadata, adapt::kMetadataLevelNames),
           "What the adapter's file says of the training; captions and the names of files and "
           "folders are in full alone");
  list.add("resume", run.resume, "Continue from the last checkpoint of `out`");
  list.add("best_by", run.best.name,
           "Score by which the best step's result is kept beside the last one's, for example "
           "\"validation loss\"");
  list.add("early_stop", run.best.patience,
           "Observations without a better score of `best_by` after which the run ends; 0 = never")
      .within(Range::at_least(0));
  list.add("dry_run", dry_run, "Print the plan and stop");
  list.add("rank_timeout", rank_timeout,
           "Several processes (mpirun, srun): seconds that a rank waits for the others before the "
           "run ends with a checkpoint")
      .within(Range::above(0));
  nodes_plan.add_to(list);
}

void TrainingOptions::translate(train::RunOptions& run, CommonOptions& common) {
  run.learning = parse_learning(method);
  run.trainer.optimizer = chosen_optimizer();
  const double usual = run.trainer.optimizer.usual_rate;
  run.trainer.learning_rate.peak = learning_rate.value_or(usual > 0.0  ? usual
                                                          : run.full() ? 1e-5
                                                                       : 1e-4);
  if (run.trainer.learning_rate.peak < 0.01 * usual)
    log(LogLevel::warning,
        optimizer + " takes the learning rate as a factor on a step of its own: " +
            exact_number(*learning_rate) + " is far below the usual " + exact_number(usual));
  run.memory_limit = memory_limit;
  std::optional<std::uint64_t> chosen = seed;
  if (!chosen && run.resume) chosen = train::recorded_seed(run.out);
  run.seed = chosen.value_or(std::random_device{}());
  run.trainer.choose_threads = common.automatic_threads();
  ranks = join_ranks(rank_timeout, common.verbose);
  if (!ranks) return;
  run.seed = ranks->first_of(run.seed);
  run.trainer.data_parallel = ranks->data_parallel();
  run.trainer.choose_threads = false;
  if (common.automatic_threads()) at::set_num_threads(ranks->threads());
  if (common.device != "auto" && common.device != "cuda") return;
  if (const int gpus = nn::cuda_state().devices; gpus > 1)  // each rank of a machine the next one
    common.device = "cuda:" + std::to_string(ranks->rank_here() % gpus);
}

train::OptimizerSpec TrainingOptions::chosen_optimizer() const {
  return train::optimizer_from_name(optimizer, numbers);
}

void plan_line(const char* what, const std::string& text) {
  std::fprintf(stderr, "  %-14s %s\n", what, printable(text).c_str());
}

void show_method(const std::string& method, std::size_t layers,
                 const std::vector<adapt::BudgetRow>& budget, std::int64_t parameters) {
  plan_line("method", method + (layers == 0 ? "" : " on " + std::to_string(layers) + " layers"));
  for (const adapt::BudgetRow& row : budget) {
    char text[200];
    std::snprintf(text, sizeof text, "%3lld layers %lld x %lld (%s, %s): %lld parameters each",
                  static_cast<long long>(row.layers), static_cast<long long>(row.shape.out),
                  static_cast<long long>(row.shape.in), adapt::to_string(row.out).c_str(),
                  adapt::to_string(row.in).c_str(), static_cast<long long>(row.parameters));
    plan_line("budget", text);
  }
  plan_line("parameters", human_count(parameters) + " (" + std::to_string(parameters) + ")");
}

void show_memory(std::uint64_t expected_bytes, std::uint64_t limit) {
  plan_line("memory", "about " + human_bytes(expected_bytes) + " at the peak" +
                          (limit == 0 ? "" : ", of " + human_bytes(limit)));
}

void show_savings(const train::MemorySavings& savings, double extra_work) {
  if (!savings.any()) return;
  char work[60] = "";
  if (extra_work > 0.0)
    std::snprintf(work, sizeof work, "; about %.0f %% more work", 100.0 * extra_work);
  plan_line("to save memory", train::text_of(savings) + work);
}

void show_optimizer(const train::OptimizerSpec& optimizer) {
  std::string text = optimizer.name;
  for (const auto& [name, number] : optimizer.settings.items())
    if (!number.is_null()) text += ", " + name + " " + number.dump();
  plan_line("optimizer", text);
}

void show_learning_rate(const train::LearningRate& rate, std::int64_t steps) {
  const auto at = [&](std::int64_t step) {
    train::LearningRate curve = rate;
    curve.steps = steps;
    return curve.at(step);
  };
  char text[160];
  std::snprintf(text, sizeof text, "%s: %.3g at the start, %.3g in the middle, %.3g at the end",
                train::decay_name(rate.decay), at(0), at(steps / 2), at(steps - 1));
  plan_line("learning rate", text);
}

bool TrainProgress::stage(const std::string& name, std::size_t total) {
  if (name != stage_) bar_.emplace(name, total, silent_);
  stage_ = name;
  bar_->advance();
  return !interrupted();
}

bool TrainProgress::step(const train::StepResult& result) {
  if (stage_ != "training") bar_.emplace("training", left_, silent_);
  stage_ = "training";
  loss_ = result.step == 1 || loss_ == 0.0 ? result.loss : 0.95 * loss_ + 0.05 * result.loss;
  char text[64];
  std::snprintf(text, sizeof text, "loss %.4f  ", loss_);
  bar_->advance(text + ("peak memory " + human_bytes(nn::peak_memory(device_))));
  return !interrupted();
}

}  // namespace ringlet::app
