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

void add_options(OptionList& list, TuneCommand& o) {
  list.add("task", o.task.task, join(tune::task_names())).required().repeated();
  list.add("model", o.model, "Folder with config.json, model.safetensors and what the task needs");
  list.add("init", o.init, "The same without weights, or some: those start at random");
  list.add("data", o.data, "Examples to learn from").required().repeated();
  list.add("eval_data", o.eval_data, "Examples to measure on")
      .or_else("every tenth of --data, which is then held out")
      .repeated();
  list.add("length", o.task.length, "Tokens of a text, at most")
      .within(Range::at_least(1))
      .or_else("128, or the max_seq_length of a folder of sentences")
      .repeated();
  list.add("loss", o.task.loss,
           "Of sentence-similarity: contrastive, for pairs that belong together, or regression")
      .or_else("regression where the pairs have scores")
      .repeated();
  o.training.add_method(list, o.run,
                        "What learns: parts such as trm(rank=2), tr(rank=6), lora(rank=4) joined "
                        "by +, an alias, or full for all weights",
                        "Layers to adapt: attention, all-linear, all, embedding",
                        "what suits the task");
  o.training.add_loop(list, o.run.trainer, o.run.batch_size, "Examples at a time");
  list.add("evaluate_every", o.run.observe_every,
           "Steps between measurements; 0 = before and after only")
      .within(Range::at_least(0));
  o.training.add_output(list);
}

void translate(TuneCommand& o, bool has_length) {
  train::RunOptions& run = o.run;
  tune::TaskOptions& task = o.task;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  run.seed = o.training.choose_seed();
  task.model = o.model.empty() ? o.init : o.model;
  if (!o.init.empty()) task.random_seed = run.seed;
  if (!has_length && task.task == "sentence-similarity")
    task.length = tune::usual_length(task.model);
  task.data = o.data;
  task.eval_data = o.eval_data;
  task.weights.device = o.common.select_device();
  task.weights.dtype = o.common.select_precision(task.weights.device, nn::Work::training);
  o.training.translate(run, run.trainer);
  run.trainer.choose_threads = o.common.automatic_threads();
  run.save_precision = o.training.storage(task.weights.device);
  run.out = o.training.out;
  run.resume = o.training.resume;
}

}  // namespace

int cmd_tune(int argc, char** argv) {
  TuneCommand command;
  OptionList list;
  CLI::App app(
      "Fine-tune a network of language, vision, recommendation, speech or of several of them, with "
      "the adapters of train.\nExample:\n  ringlet tune --task image-classification --model "
      "vit-base --data pictures --method \"trm(rank=2)+lora(rank=4)\" --steps 300 --out runs/vit",
      "tune");
  add_options(list, command);
  command.common.add_to(list);
  command.common.add_arithmetic_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  command.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("tune", [&] {
    translate(command, app.get_option("--length")->count() > 0);
    return carry_out(command.run, tune::task(command.task), command.training, command.common, list);
  });
}

}  // namespace ringlet::app
