#include "training_run.h"

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include "option_words.h"

namespace ringlet::app {
namespace {

std::string steps_text(const train::Run& run) {
  const train::RunOptions& o = run.options();
  const train::RunPlan& plan = run.plan();
  const std::string size = run.task().example_size();
  char epochs[40];
  std::snprintf(epochs, sizeof epochs, "%.1f epochs", plan.epochs);
  return std::to_string(plan.steps) + " of batch " + std::to_string(o.batch_size) + " x " +
         std::to_string(o.trainer.gradient_accumulation) +
         (o.trainer.data_parallel.count == 1
              ? ""
              : " on each of " + std::to_string(o.trainer.data_parallel.count) + " ranks") +
         (size.empty() ? "" : " at " + size) + ", " + epochs +
         (plan.first_step == 0 ? "" : ", resuming after step " + std::to_string(plan.first_step));
}

void show_plan(const train::Run& run) {
  const train::RunPlan& plan = run.plan();
  std::fprintf(stderr, "The plan:\n");
  for (const auto& [name, text] : run.task().plan_lines(option_of)) plan_line(name.c_str(), text);
  show_method(plan.method, plan.layers, plan.budget, plan.parameters);
  for (const train::RunPlan::Group& group : plan.groups)
    plan_line("layers", std::to_string(group.layers) + " of " + group.name + ": " +
                            std::to_string(group.parameters) + " parameters");
  if (plan.new_layers > 0)
    plan_line("new layers", std::to_string(plan.new_layers) + ", trained in full");
  plan_line("steps", steps_text(run));
  show_optimizer(run.options().trainer.optimizer);
  show_learning_rate(run.options().trainer.learning_rate, plan.steps);
  if (plan.expected_bytes > 0) show_memory(plan.expected_bytes, run.options().memory_limit);
  show_savings(run.options().savings, plan.extra_work);
  plan_line("seed", std::to_string(run.options().seed));
}

nlohmann::json plan_json(const train::Run& run) {
  const train::RunPlan& plan = run.plan();
  nlohmann::json json = run.task().plan_json(option_of);
  json.update({{"method", plan.method},
               {"layers", plan.layers},
               {"new_layers", plan.new_layers},
               {"parameters", plan.parameters},
               {"optimizer", run.options().trainer.optimizer.name},
               {"steps", plan.steps},
               {"first_step", plan.first_step},
               {"epochs", plan.epochs},
               {"ranks", run.options().trainer.data_parallel.count}});
  json["layer_groups"] = nlohmann::json::array();
  for (const train::RunPlan::Group& group : plan.groups)
    json["layer_groups"].push_back(
        {{"name", group.name}, {"layers", group.layers}, {"parameters", group.parameters}});
  if (plan.expected_bytes > 0) json["expected_bytes"] = plan.expected_bytes;
  if (run.options().savings.any()) {
    json["memory_savings"] = train::to_json(run.options().savings);
    json["extra_work"] = plan.extra_work;
  }
  return json;
}

nlohmann::json to_json(const train::ScoreRow& row) {
  nlohmann::json scores = nlohmann::json::object();
  for (const train::Score& score : row.scores) scores[score.name] = score.value;
  return {{"step", row.step}, {"scores", scores}};
}

void add_result(nlohmann::json& result, const train::Run& run) {
  result["result"] = run.result().string();
  if (const auto companion = run.companion()) result[run.task().companion()] = companion->string();
  result["report"] = run.report_file().string();
  result["seconds"] = run.seconds();
  for (const train::ScoreRow& row : run.scores()) result["scores"].push_back(to_json(row));
}

void print_scores(const std::vector<train::ScoreRow>& rows) {
  if (rows.empty()) return;
  for (std::size_t i = 0; i < rows.front().scores.size(); ++i) {
    const train::Score& before = rows.front().scores[i];
    std::printf("%-28s %.4f before, %.4f after (%s is better)\n", before.name.c_str(), before.value,
                rows.back().scores[i].value, before.higher_is_better ? "higher" : "lower");
  }
}

void print_result(const train::Run& run) {
  if (run.task().observation_rules().needed) print_scores(run.scores());
  std::printf("%s\n", run.result().c_str());
  if (const auto companion = run.companion(); companion && *companion != run.result())
    std::printf("%s\n", companion->c_str());
  std::printf("%s\n", run.report_file().c_str());
}

void show_ranks(const train::ProcessGroup& ranks) {
  plan_line("ranks", std::to_string(ranks.count()) + " on " + std::to_string(ranks.machines()) +
                         (ranks.machines() == 1 ? " machine, " : " machines, ") +
                         "threads of each: " + std::to_string(at::get_num_threads()));
}

void train_to_the_end(train::Run& run, bool silent, c10::Device device,
                      train::ProcessGroup* ranks) {
  TrainProgress progress(silent, run.plan().steps - run.plan().first_step, device);
  train::RunObserver observer;
  observer.progress = [&](const std::string& stage, std::size_t, std::size_t total) {
    return progress.stage(stage, total);
  };
  observer.step = [&](const train::StepResult& result) { return progress.step(result); };
  const bool finished = run.run(observer);
  if (ranks != nullptr) ranks->finish();
  if (!finished)
    throw Error(ErrorCode::cancelled, "training", "stopped",
                "a checkpoint was written; run the same command with --resume to continue");
}

}  // namespace

int carry_out(const train::RunOptions& options, const train::OpenTask& task,
              const TrainingOptions& words, const CommonOptions& common, const OptionList& list) {
  train::ProcessGroup* const ranks = words.ranks.get();
  const train::DataParallel& parallel = options.trainer.data_parallel;
  const bool silent = common.quiet || common.json || !parallel.writes();
  const c10::Device device = common.select_device();
  std::optional<TrainProgress> checking(std::in_place, silent, 0, device);
  train::RunObserver opening;
  opening.progress = [&](const std::string& stage, std::size_t, std::size_t total) {
    constexpr std::size_t kFew = 200;  // a few seconds
    return total < kFew ? !interrupted() : checking->stage(stage, total);
  };
  std::optional<train::Run> opened;
  parallel.alone([&] { opened.emplace(options, task, opening); });
  train::Run& run = *opened;
  checking.reset();
  if (!silent) show_plan(run);
  if (!silent && ranks != nullptr) show_ranks(*ranks);
  nlohmann::json result = {{"plan", plan_json(run)}};
  result["plan"]["options"] = list.values();
  const bool predicts = !words.nodes_plan.ranks.empty();
  if (predicts) {
    result["nodes_plan"] = plan_nodes(run, words.nodes_plan, ranks, opening.progress);
  } else if (!words.dry_run) {
    train_to_the_end(run, silent, device, ranks);
    add_result(result, run);
  }
  if (ranks != nullptr) ranks->finish();
  if (!parallel.writes()) return 0;
  if (common.json) {
    print_json(result);
  } else if (predicts) {
    print_nodes_plan(result.at("nodes_plan"));
  } else if (!words.dry_run) {
    print_result(run);
  }
  return 0;
}

}  // namespace ringlet::app
