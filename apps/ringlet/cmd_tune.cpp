// `ringlet tune`: the same adapters on networks of language, vision, speech and others.
#include <filesystem>

#include "options.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/tune/sentences.h"
#include "ringlet/tune/task.h"
#include "training_options.h"
#include "training_run.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct TuneCommand {
  TuneCommand() { run.batch_size = 16; }

  CommonOptions common;
  TrainingOptions training;
  train::RunOptions run;
  tune::TaskOptions task;
  std::filesystem::path model, init;
};

void add_options(OptionList& list, TuneCommand& o) {
  list.add("model", o.model, "Folder with config.json, model.safetensors and what the task needs");
  list.add("init", o.init, "Like --model, but weights that are missing start at random");
  tune::describe(list, o.task);
  o.training.add_method(
      list, o.run,
      "What is trained: parts such as trm(rank=2), tr(rank=6), lora(rank=4) joined "
      "by +, an alias, or full for all weights",
      "Layers to adapt: attention, all-linear, all, embedding", "the task's default");
  o.training.add_loop(list, o.run, "Batch size");
  list.add("evaluate_every", o.run.observe_every,
           "Steps between evaluations; 0 = before and after only")
      .within(Range::at_least(0));
  o.training.add_output(list, o.run);
}

void translate(TuneCommand& o, bool has_length) {
  train::RunOptions& run = o.run;
  tune::TaskOptions& task = o.task;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  o.training.translate(run, o.common);
  task.model = o.model.empty() ? o.init : o.model;
  if (!o.init.empty()) task.random_seed = run.seed;
  if (!has_length && task.task == "sentence-similarity")
    task.length = tune::usual_length(task.model);
  task.weights.device = o.common.select_device();
  task.weights.dtype = o.common.select_precision(task.weights.device, nn::Work::training);
}

}  // namespace

int cmd_tune(int argc, char** argv) {
  TuneCommand command;
  OptionList list;
  CLI::App app(
      "Fine-tune language, vision, recommendation, speech and multimodal networks with the "
      "adapters of train.\nExample:\n  ringlet tune --task image-classification --model "
      "vit-base --data pictures --method \"trm(rank=2)+lora(rank=4)\" --steps 300 --out runs/vit",
      "tune");
  add_options(list, command);
  command.common.add_to(list);
  command.common.add_arithmetic_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  command.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("tune", [&] {
    command.training.nodes_plan.check(app);
    TrainingOptions::check_given(app, command.run);
    translate(command, app.get_option("--length")->count() > 0);
    return carry_out(command.run, tune::task(command.task), command.training, command.common, list);
  });
}

}  // namespace ringlet::app
