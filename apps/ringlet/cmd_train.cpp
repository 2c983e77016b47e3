#include <filesystem>
#include <string>
#include <utility>

#include "canny_options.h"
#include "options.h"
#include "ringlet/data/dataset_file.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/service/control_metric.h"
#include "ringlet/train/text_to_image/text_to_image_task.h"
#include "training_options.h"
#include "training_run.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct TrainOptions {
  CommonOptions common;
  train::RunOptions run;
  train::TextToImageOptions task;
  TrainingOptions training;
  std::filesystem::path model, init, dataset_config;
};

void add_options(OptionList& list, TrainOptions& o) {
  list.add("model", o.model, "Model folder (diffusers) or single .safetensors checkpoint");
  list.add("init", o.init, "Model folder in which parts without weights start at random");
  pipeline::describe(list, o.task.load.files);
  pipeline::describe_prediction(list, o.task.load.files);
  o.training.add_method(
      list, o.run,
      "What is trained: parts such as trm(rank=2), tr(rank=6), lora(rank=4,alpha=4) joined by +, "
      "an alias (tlora, tlora-star), full for all weights, or none for a ControlNet alone",
      "Layers to adapt: attention, attention+ff, all-linear, all, text-encoder, and of "
      "transformers double-blocks and single-blocks; may be given several times",
      "attention");
  train::describe(list, o.task);
  list.add("dataset_config", o.dataset_config,
           "Several data sets: kohya's dataset_config (TOML). In the file of --config they are "
           "tables [[dataset]]");
  pipeline::describe_offload(list, o.task.load);
  o.training.add_loop(list, o.run, "Batch size");
  o.training.add_output(list, o.run);
  list.add("sample_every", o.run.observe_every,
           "Steps between sample grids; 0 = before and after only")
      .within(Range::at_least(0));
}

/// Brings the words of the command line into the library's terms.
void translate(TrainOptions& o) {
  train::RunOptions& run = o.run;
  train::TextToImageOptions& task = o.task;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  o.training.translate(run, o.common);
  task.model = o.model.empty() ? o.init : o.model;
  if (!o.init.empty()) task.load.files.random_seed = run.seed;
  task.load.device = o.common.select_device();
  task.load.precision = o.common.select_precision(task.load.device, nn::Work::training);
  if (task.control) task.control.metric = service::control_metric(task.control.settings());
}

/// The data sets of kohya's file, or of the tables in the file of --config.
void read_datasets(const CLI::App& app, TrainOptions& o) {
  const data::Dataset usual = train::usual_dataset(o.task);
  const CLI::Option* config = app.get_config_ptr();
  if (config->count() > 0)
    o.task.data.sets = data::read_dataset_tables(config->as<std::string>(), usual);
  if (o.dataset_config.empty()) return;
  if (!o.task.data.sets.empty())
    throw Error(ErrorCode::invalid_argument, "--dataset-config",
                "the file of --config has data sets as well", "leave one of them out");
  data::DatasetConfig kohya = data::read_kohya_datasets(o.dataset_config, usual);
  o.task.data.sets = std::move(kohya.datasets);
  if (!kohya.batch_size) return;
  if (app.count("--batch-size") > 0 && o.run.batch_size != *kohya.batch_size)
    throw Error(ErrorCode::invalid_argument, "--batch-size",
                "the file of --dataset-config says " + std::to_string(*kohya.batch_size),
                "leave one of them out");
  o.run.batch_size = *kohya.batch_size;
}

/// Options that would be ignored.
void check_given(const CLI::App& app, const TrainOptions& o) {
  TrainingOptions::check_given(app, o.run);
  if (!o.task.control)
    refuse_given(app,
                 {"--control-images", "--control-network", "--canny-low", "--canny-high",
                  "--validation-pictures"},
                 "it applies to control signals, but there is none",
                 "give --control as well, or leave it out");
  else
    refuse_given(app, {"--sample-images"},
                 "it counts pictures of a prompt: with --control, each of the held-out pictures "
                 "is a sample",
                 "give --validation-pictures N for N of them");
  check_canny(app,
              o.task.control.signal == data::ControlSignal::canny && o.task.control.images.empty());
}

}  // namespace

int cmd_train(int argc, char** argv) {
  TrainOptions options;
  OptionList list;
  CLI::App app(
      "Teach a model a subject or style from a folder of pictures.\nExample:\n  ringlet train "
      "--model MODEL --instance-images photos --instance-prompt \"a photo of sks dog\" --method "
      "\"trm(rank=2)+tr(rank=6)\" --steps 800 --out runs/dog",
      "train");
  add_options(list, options);
  options.common.add_to(list);
  options.common.add_arithmetic_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("train", [&] {
    check_given(app, options);
    options.training.nodes_plan.check(app);
    read_datasets(app, options);
    translate(options);
    return carry_out(options.run, train::text_to_image(options.task), options.training,
                     options.common, list);
  });
}

}  // namespace ringlet::app
