// `ringlet tune`: the same adapters on networks of language, vision, speech and others.
#include <cstdio>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/plan_json.h"
#include "ringlet/tune/sentences.h"
#include "ringlet/tune/tune.h"
#include "training_options.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct TuneCommand {
  CommonOptions common;
  TrainingOptions training;
  tune::TuneOptions run;
  std::string model, init, data, eval_data;
};

void add_options(CLI::App& app, TuneCommand& o) {
  app.add_option("--task", o.run.task, join(tune::task_names()))->required();
  app.add_option("--model", o.model,
                 "Folder with config.json, model.safetensors and what the task needs");
  app.add_option("--init", o.init, "The same without weights, or some: those start at random");
  app.add_option("--data", o.data, "Examples to learn from")->required();
  app.add_option("--eval-data", o.eval_data,
                 "Examples to measure on [every tenth of --data, which is then held out]");
  app.add_option("--length", o.run.examples.length,
                 "Tokens of a text, at most [128, or the max_seq_length of a folder of sentences]");
  app.add_option("--loss", o.run.examples.loss,
                 "Of sentence-similarity: contrastive, for pairs that belong together, or "
                 "regression [regression where the pairs have scores]");
  o.training.add_method(app, o.run,
                        "What learns: parts such as trm(rank=2), tr(rank=6), lora(rank=4) joined "
                        "by +, an alias, or full for all weights",
                        "Layers to adapt: attention, all-linear, all, embedding [what suits the "
                        "task]");
  o.training.add_loop(app, o.run.trainer, o.run.batch_size, "Examples at a time");
  app.add_option("--evaluate-every", o.run.evaluate_every,
                 "Steps between measurements; 0 = before and after only")
      ->capture_default_str();
  o.training.add_output(app, o.run.trainer);
}

void translate(TuneCommand& o, bool has_length) {
  tune::TuneOptions& run = o.run;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  if (run.examples.length < 1)
    throw Error(ErrorCode::invalid_argument, "--length", "must be at least 1");
  run.seed = o.training.choose_seed();
  run.examples.model = o.model.empty() ? o.init : o.model;
  if (!o.init.empty()) run.examples.random_seed = run.seed;
  if (!has_length && run.task == "sentence-similarity")
    run.examples.length = tune::usual_length(run.examples.model);
  run.examples.data = o.data;
  run.examples.eval_data = o.eval_data;
  run.examples.weights.device = o.common.select_device();
  run.examples.weights.dtype = o.common.select_precision(run.examples.weights.device);
  o.training.translate(run, run.trainer);
  run.trainer.choose_threads = o.common.automatic_threads();
  run.save_precision = o.training.storage(run.examples.weights.device);
  run.out = o.training.out;
  run.resume = o.training.resume;
}

void show_plan(const tune::TunePlan& plan, const TuneCommand& o) {
  std::fprintf(stderr, "The plan:\n");
  plan_line("network", plan.network + " on " + o.run.examples.weights.device.str() + " in " +
                           nn::precision_name(o.run.examples.weights.dtype));
  plan_line("examples", std::to_string(plan.examples) + " to learn from, " +
                            std::to_string(plan.held_out) + " held out");
  show_method(plan.method, plan.layers, plan.budget, plan.parameters);
  if (plan.new_layers > 0)
    plan_line("new layers", std::to_string(plan.new_layers) + ", which learn as they are");
  char text[120];
  std::snprintf(text, sizeof text, "%lld of batch %lld, %.1f epochs",
                static_cast<long long>(o.run.trainer.steps),
                static_cast<long long>(o.run.batch_size), plan.epochs);
  plan_line("steps", text);
  show_optimizer(o.run.trainer.optimizer);
  show_learning_rate(o.run.trainer.learning_rate, o.training.schedule, o.run.trainer.steps);
  plan_line("seed", std::to_string(o.run.seed));
}

void print_scores(const std::vector<tune::ScoreRow>& rows) {
  if (rows.empty()) return;
  for (std::size_t i = 0; i < rows.front().scores.size(); ++i)
    std::printf("%-28s %.4f before, %.4f after (%s is better)\n",
                rows.front().scores[i].name.c_str(), rows.front().scores[i].value,
                rows.back().scores[i].value,
                rows.front().scores[i].higher_is_better ? "higher" : "lower");
}

int tune_run(TuneCommand& o, bool has_length) {
  translate(o, has_length);
  tune::Tune run(o.run);
  const bool silent = o.common.quiet || o.common.json;
  if (!silent) show_plan(run.plan(), o);
  nlohmann::json result = {{"plan", service::to_json(run.plan())}};
  if (!o.training.dry_run) {
    TrainProgress progress(silent, o.run.trainer.steps - run.plan().first_step);
    if (!run.run([&](const train::StepReport& step) { return progress.step(step); }))
      throw Error(ErrorCode::cancelled, "training", "stopped",
                  "a checkpoint was written; the same command with --resume goes on");
    result["result"] = run.result().string();
    result["report"] = (o.run.out / "report.html").string();
    result["seconds"] = run.seconds();
    for (const tune::ScoreRow& row : run.scores())
      result["scores"].push_back(service::to_json(row));
  }
  if (o.common.json) {
    print_json(result);
  } else if (!o.training.dry_run) {
    print_scores(run.scores());
    std::printf("%s\n%s\n", run.result().c_str(), (o.run.out / "report.html").c_str());
  }
  return 0;
}

}  // namespace

int cmd_tune(int argc, char** argv) {
  TuneCommand command;
  CLI::App app(
      "Fine-tune a network of language, vision, recommendation, speech or of several of them, with "
      "the adapters of train.\nExample:\n  ringlet tune --task image-classification --model "
      "vit-base --data pictures --method \"trm(rank=2)+lora(rank=4)\" --steps 300 --out runs/vit",
      "tune");
  add_options(app, command);
  command.common.add_to(app);
  if (const ParseResult done = parse(app, argc, argv)) return *done;
  command.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors(
      "tune", [&] { return tune_run(command, app.get_option("--length")->count() > 0); });
}

}  // namespace ringlet::app
