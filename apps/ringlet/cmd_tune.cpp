// `ringlet tune`: the same adapters on networks of language, vision, speech and others.
#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
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
  std::string model, init, data, eval_data;
};

void add_options(CLI::App& app, TuneCommand& o) {
  app.add_option("--task", o.task.task, join(tune::task_names()))->required();
  app.add_option("--model", o.model,
                 "Folder with config.json, model.safetensors and what the task needs");
  app.add_option("--init", o.init, "The same without weights, or some: those start at random");
  app.add_option("--data", o.data, "Examples to learn from")->required();
  app.add_option("--eval-data", o.eval_data,
                 "Examples to measure on [every tenth of --data, which is then held out]");
  app.add_option("--length", o.task.length,
                 "Tokens of a text, at most [128, or the max_seq_length of a folder of sentences]");
  app.add_option("--loss", o.task.loss,
                 "Of sentence-similarity: contrastive, for pairs that belong together, or "
                 "regression [regression where the pairs have scores]");
  o.training.add_method(app, o.run,
                        "What learns: parts such as trm(rank=2), tr(rank=6), lora(rank=4) joined "
                        "by +, an alias, or full for all weights",
                        "Layers to adapt: attention, all-linear, all, embedding [what suits the "
                        "task]");
  o.training.add_loop(app, o.run.trainer, o.run.batch_size, "Examples at a time");
  app.add_option("--evaluate-every", o.run.observe_every,
                 "Steps between measurements; 0 = before and after only")
      ->capture_default_str();
  o.training.add_output(app, o.run.trainer);
}

void translate(TuneCommand& o, bool has_length) {
  train::RunOptions& run = o.run;
  tune::TaskOptions& task = o.task;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  if (task.length < 1) throw Error(ErrorCode::invalid_argument, "--length", "must be at least 1");
  run.seed = o.training.choose_seed();
  task.model = o.model.empty() ? o.init : o.model;
  if (!o.init.empty()) task.random_seed = run.seed;
  if (!has_length && task.task == "sentence-similarity")
    task.length = tune::usual_length(task.model);
  task.data = o.data;
  task.eval_data = o.eval_data;
  task.weights.device = o.common.select_device();
  task.weights.dtype = o.common.select_precision(task.weights.device);
  o.training.translate(run, run.trainer);
  run.trainer.choose_threads = o.common.automatic_threads();
  run.save_precision = o.training.storage(task.weights.device);
  run.out = o.training.out;
  run.resume = o.training.resume;
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
  return nn::with_ringlet_errors("tune", [&] {
    translate(command, app.get_option("--length")->count() > 0);
    return carry_out(command.run, tune::task(command.task), command.training, command.common);
  });
}

}  // namespace ringlet::app
