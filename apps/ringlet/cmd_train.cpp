#include <algorithm>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include "canny_options.h"
#include "model_options.h"
#include "option_words.h"
#include "options.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/control_metric.h"
#include "ringlet/service/plan_json.h"
#include "ringlet/train/fine_tune.h"
#include "training_options.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct TrainOptions {
  CommonOptions common;
  train::FineTuneOptions run;
  TrainingOptions training;
  ModelOptions files;
  std::string model, init, instance_images, class_images, cache;
  std::string crop = "centre";
  std::string control, control_images, control_network = "encoder";
  data::CannyThresholds canny;
  std::int64_t resolution = 0;  ///< pixels of a side; 0 = the model's own
  std::int64_t validation_pictures = 0;
};

void add_model_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--model", o.model, "Model folder (diffusers) or single .safetensors checkpoint");
  app.add_option("--init", o.init,
                 "Model folder whose parts may lack weights: those start at random");
  o.files.add_files(app);
  o.files.add_prediction(app);
  o.training.add_method(
      app, o.run,
      "What learns: parts such as trm(rank=2), tr(rank=6), lora(rank=4,alpha=4) joined by +, an "
      "alias (tlora, tlora-star), full for all weights, or none for a ControlNet alone",
      "Layers to adapt: attention, attention+ff, all-linear, all, text-encoder; may be given "
      "several "
      "times [attention]");
  app.add_flag("--train-text-encoder", o.run.train_text_encoder, "The text encoder learns as well");
}

void add_data_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--instance-images", o.instance_images,
                 "Folder with the training pictures: .png, .jpg, .webp or .bmp files")
      ->required();
  app.add_option("--instance-prompt", o.run.instance_prompt,
                 "Caption of pictures that have no .txt or .caption file beside them");
  app.add_option("--class-prompt", o.run.class_prompt,
                 "Prior preservation: what the class looks like, for example \"a photo of a dog\"");
  app.add_option("--class-images", o.class_images,
                 "Folder with class pictures; missing ones are made [OUT/class_images]");
  app.add_option("--class-count", o.run.class_count,
                 "Class pictures to use, the first by name where there are more")
      ->capture_default_str();
  app.add_option("--prior-weight", o.run.loss.prior_weight, "Weight of the class pictures' loss")
      ->capture_default_str();
  app.add_option("--repeats", o.run.repeats, "How often an epoch shows each picture")
      ->capture_default_str();
  app.add_option("--resolution", o.resolution, "Pixels of a side [the model's own]");
  app.add_option("--crop", o.crop, "centre, or random: eight places of each picture")
      ->capture_default_str();
  app.add_flag("--flip", o.run.crop.flip, "Also show pictures mirrored");
  app.add_option("--cache", o.cache, "Folder that keeps encoded pictures for later runs");
}

void add_control_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--control", o.control,
                 "Pictures that follow a signal: canny, segmentation, landmark or map");
  app.add_option("--control-images", o.control_images,
                 "Folder with the signals, one file per picture, of the same name: maps, or "
                 ".json/.pts landmarks; canny and segmentation are computed without it");
  app.add_option("--control-network", o.control_network,
                 "encoder: a small one that is trained with the adapter and saved in its file; "
                 "controlnet: a ControlNet, saved beside it as diffusers reads it")
      ->capture_default_str();
  add_canny(app, o.canny);
  app.add_option("--validation-pictures", o.validation_pictures,
                 "Pictures held out, two at least, to show and to measure whether the signal is "
                 "followed: they take the place of sample prompts; 0 = no samples")
      ->capture_default_str();
}

void add_loop_options(CLI::App& app, TrainOptions& o) {
  train::DiffusionLossOptions& l = o.run.loss;
  o.training.add_loop(app, o.run.trainer, l.batch_size, "Pictures at a time");
  app.add_flag("--gradient-checkpointing", o.run.gradient_checkpointing,
               "Less memory for more time: compute activations twice");
  app.add_option("--min-snr-gamma", l.min_snr_gamma, "Min-SNR loss weighting, usually 5; 0 = off")
      ->capture_default_str();
  app.add_option("--noise-offset", l.noise_offset, "Deviation of a constant per channel")
      ->capture_default_str();
  app.add_option("--caption-dropout", l.caption_dropout, "Share of empty captions")
      ->capture_default_str();
  add_clip_skip(app, l.clip_skip);
}

void add_output_options(CLI::App& app, TrainOptions& o) {
  o.training.add_output(app, o.run.trainer);
  repeatable(
      app.add_option("--sample-prompt", o.run.samples.prompts,
                     "Prompt of sample pictures; may be given several times [the captions; with "
                     "--control the validation pictures instead]"));
  app.add_option("--sample-every", o.run.sample_every,
                 "Steps between sample grids; 0 = before and after only")
      ->capture_default_str();
  app.add_option("--sample-images", o.run.samples.images, "Pictures per sample prompt")
      ->capture_default_str();
  app.add_option("--sample-steps", o.run.samples.steps, "Sampling steps")->capture_default_str();
  app.add_option("--sample-guidance", o.run.samples.guidance, "Guidance scale of samples")
      ->capture_default_str();
  app.add_option("--sample-seed", o.run.samples.seed, "First seed of samples")
      ->capture_default_str();
}

void check_numbers(const train::FineTuneOptions& run) {
  check_share("--caption-dropout", run.loss.caption_dropout);
  check_not_negative("--prior-weight", run.loss.prior_weight);
  check_not_negative("--min-snr-gamma", run.loss.min_snr_gamma);
  check_not_negative("--noise-offset", run.loss.noise_offset);
  check_not_negative("--sample-every", static_cast<double>(run.sample_every));
  if (run.class_count < 1 || run.samples.images < 1 || run.samples.steps < 1)
    throw Error(ErrorCode::invalid_argument, "--class-count, --sample-images, --sample-steps",
                "must be at least 1");
}

/// Brings the words of the command line into the library's terms.
void translate(TrainOptions& o) {
  train::FineTuneOptions& run = o.run;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  run.seed = o.training.choose_seed();
  run.model = o.model.empty() ? o.init : o.model;
  run.load.files = o.files.files();
  if (!o.init.empty()) run.load.files.random_seed = run.seed;
  run.load.device = o.common.select_device();
  run.load.precision = o.common.select_precision(run.load.device);
  o.training.translate(run, run.trainer);
  run.trainer.choose_threads = o.common.automatic_threads();
  run.save_precision = o.training.storage(run.load.device);
  run.out = o.training.out;
  run.resume = o.training.resume;
  run.instance_images = o.instance_images;
  run.class_images = o.class_images;
  run.cache = o.cache;
  if (o.crop != "centre" && o.crop != "center" && o.crop != "random")
    throw Error(ErrorCode::invalid_argument, "--crop", "\"" + o.crop + "\" is not known",
                "use centre or random");
  run.crop.size = PictureSize::square(o.resolution);
  run.crop.random = o.crop == "random";
  if (!o.control.empty()) {
    const data::ControlSettings settings{
        data::control_signal_from_name(o.control, Field("control")), o.canny, o.control_images};
    run.control = {settings, pipeline::control_kind_from_name(o.control_network),
                   o.validation_pictures, service::control_metric(settings)};
  }
  check_numbers(run);
}

/// Options that would be passed over.
void check_given(const CLI::App& app, const TrainOptions& o) {
  if (o.control.empty())
    refuse_given(app,
                 {"--control-images", "--control-network", "--canny-low", "--canny-high",
                  "--validation-pictures"},
                 "it says something about a control signal, and there is none",
                 "give --control as well, or leave it out");
  else
    refuse_given(app, {"--sample-images"},
                 "it counts pictures of a prompt: with --control, each of the held-out pictures "
                 "is a sample",
                 "give --validation-pictures N for N of them");
  check_canny(app, o.control == "canny" && o.control_images.empty());
}

/// The places of texts that are too long, too, are options here.
Json plan_json(const train::FineTunePlan& plan) {
  Json json = service::to_json(plan);
  for (Json& text : json.at("captions_too_long"))
    text["where"] = with_options(text.at("where").get<std::string>());
  return json;
}

void show_class_pictures(const train::FineTunePlan& plan, const std::string& prompt) {
  const std::string found = std::to_string(plan.class_found);
  const bool all = plan.class_found == plan.class_pictures;
  plan_line(
      "class pictures",
      (all ? found + " found" : std::to_string(plan.class_pictures) + " of " + found + " used") +
          ", " + std::to_string(plan.class_to_make) + " to make, \"" + prompt + "\"" +
          (all ? "" : "; --class-count " + found + " uses all"));
  for (const data::FolderNote& note : plan.class_notes)
    plan_line("note", "class pictures: " + data::text_of(note));
}

void show_plan(const train::FineTunePlan& plan, const TrainOptions& o) {
  char text[200];
  std::fprintf(stderr, "The plan:\n");
  plan_line("model", plan.model_kind + " on " + o.run.load.device.str() + " in " +
                         nn::precision_name(o.run.load.precision));
  plan_line("pictures", std::to_string(plan.pictures) + " of " + o.instance_images + " (" +
                            plan.folder_rule + "), " + std::to_string(plan.captions) +
                            " with captions of their own");
  for (const data::FolderNote& note : plan.notes) plan_line("note", data::text_of(note));
  for (const auto& [caption, tokens] : plan.examples)
    plan_line("caption", "\"" + caption + "\" (" + std::to_string(tokens) + " tokens)");
  for (const auto& [where, cut] : plan.too_long)
    plan_line("too long", with_options(where) + ": " + std::to_string(cut.tokens) +
                              " tokens, the model reads " + std::to_string(cut.limit) +
                              "; ignored: \"" + cut.cut + "\"");
  if (!o.run.class_prompt.empty()) show_class_pictures(plan, o.run.class_prompt);
  if (o.run.control)
    plan_line("control", o.control + " through " + o.control_network + ", " +
                             human_count(plan.control_parameters) + " parameters, " +
                             std::to_string(plan.validation) + " pictures held out" +
                             (plan.validation == 0 ? ": there will be no samples" : ""));
  show_method(plan.method, plan.layers, plan.budget, plan.parameters);
  std::snprintf(text, sizeof text, "%lld of batch %lld x %lld at %s pixels, %.1f epochs%s",
                static_cast<long long>(plan.steps), static_cast<long long>(o.run.loss.batch_size),
                static_cast<long long>(o.run.trainer.gradient_accumulation),
                plan.resolution.short_text().c_str(), plan.epochs,
                plan.first_step == 0
                    ? ""
                    : (", going on after step " + std::to_string(plan.first_step)).c_str());
  plan_line("steps", text);
  show_optimizer(o.run.trainer.optimizer);
  show_learning_rate(o.run.trainer.learning_rate, o.training.schedule, plan.steps);
  show_memory(plan.expected_bytes);
  plan_line("seed", std::to_string(o.run.seed));
}

int train_run(TrainOptions& o) {
  translate(o);
  const bool silent = o.common.quiet || o.common.json;
  std::optional<TrainProgress> checking(std::in_place, silent, 0);
  train::FineTune run(o.run, {.progress =
                                  [&](const std::string& stage, std::size_t, std::size_t total) {
                                    constexpr std::size_t kFew = 200;  // a few seconds
                                    return total < kFew ? !interrupted()
                                                        : checking->stage(stage, total);
                                  },
                              .step = {}});
  checking.reset();
  if (!silent) show_plan(run.plan(), o);
  nlohmann::json result = {{"plan", plan_json(run.plan())}};
  if (!o.training.dry_run) {
    TrainProgress progress(silent, o.run.trainer.steps - run.plan().first_step);
    train::FineTuneObserver observer;
    observer.progress = [&](const std::string& stage, std::size_t, std::size_t total) {
      return progress.stage(stage, total);
    };
    observer.step = [&](const train::StepReport& report) { return progress.step(report); };
    if (!run.run(observer))
      throw Error(ErrorCode::cancelled, "training", "stopped",
                  "a checkpoint was written; the same command with --resume goes on");
    result["result"] = run.result().string();
    if (run.controlnet()) result["controlnet"] = run.controlnet()->string();
    result["report"] = (o.run.out / "report.html").string();
  }
  if (o.common.json) {
    print_json(result);
  } else if (!o.training.dry_run) {
    std::printf("%s\n", run.result().c_str());
    if (const auto controlnet = run.controlnet(); controlnet && *controlnet != run.result())
      std::printf("%s\n", controlnet->c_str());
    std::printf("%s\n", (o.run.out / "report.html").c_str());
  }
  return 0;
}

}  // namespace

int cmd_train(int argc, char** argv) {
  TrainOptions options;
  CLI::App app(
      "Teach a model a subject or style from a folder of pictures.\nExample:\n  ringlet train "
      "--model MODEL --instance-images photos --instance-prompt \"a photo of sks dog\" --method "
      "\"trm(rank=2)+tr(rank=6)\" --steps 800 --out runs/dog",
      "train");
  add_model_options(app, options);
  add_data_options(app, options);
  add_control_options(app, options);
  add_loop_options(app, options);
  add_output_options(app, options);
  options.common.add_to(app);
  if (const ParseResult done = parse(app, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("train", [&] {
    check_given(app, options);
    return train_run(options);
  });
}

}  // namespace ringlet::app
