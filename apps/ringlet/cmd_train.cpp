#include <algorithm>
#include <charconv>
#include <cstdio>
#include <random>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/eval/control_metrics.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/fine_tune.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct TrainOptions {
  CommonOptions common;
  train::FineTuneOptions run;
  std::string model, init, variant, tokenizer, prediction, out, instance_images, class_images,
      cache;
  std::string crop = "centre", schedule = "constant", betas = "0.9,0.999";
  std::vector<std::string> factors, penalties;
  std::optional<double> learning_rate;
  std::optional<std::uint64_t> seed;
  std::string save_precision = "fp32";
  bool dry_run = false;
  std::string control, control_images, control_network = "encoder";
  data::CannyThresholds canny;
  std::int64_t validation_pictures = 0;
};

void add_model_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--model", o.model, "Model folder (diffusers) or single .safetensors checkpoint");
  app.add_option("--init", o.init,
                 "Model folder whose parts may lack weights: those start at random");
  app.add_option("--variant", o.variant, "Weight files to prefer in a folder, for example fp16");
  app.add_option("--tokenizer", o.tokenizer, "Tokenizer folder, for single-file checkpoints");
  app.add_option("--prediction", o.prediction,
                 "epsilon or v: what the model predicts, when its files say it wrongly");
  app.add_option("--method", o.run.method,
                 "What learns: parts such as trm(rank=2), tr(rank=6), lora(rank=4,alpha=4) joined "
                 "by +, an alias (tlora, tlora-star), full for all weights, or none for a "
                 "ControlNet alone")
      ->capture_default_str();
  app.add_option("--budget", o.run.budget,
                 "Parameters to spend, for example 0.4M: chooses the ranks of the method's parts");
  repeatable(app.add_option("--targets", o.run.targets.presets,
                            "Layers to adapt: attention, attention+ff, all-linear, all, "
                            "text-encoder; may be given several times [attention]"));
  repeatable(app.add_option("--include", o.run.targets.include,
                            "More layers, by glob over \"unet.down_blocks…\" or re:REGEX"));
  repeatable(
      app.add_option("--exclude", o.run.targets.exclude, "Fewer layers, by glob or re:REGEX"));
  repeatable(app.add_option("--factors", o.factors,
                            "Factors of a dimension by hand, for example 320=4x8x10"));
  app.add_flag("--train-text-encoder", o.run.train_text_encoder, "The text encoder learns as well");
  app.add_option("--dropout", o.run.dropout.input, "Share of the residual's input left out");
  app.add_option("--rank-dropout", o.run.dropout.rank, "Chance of leaving a rank out of a step");
  app.add_option("--module-dropout", o.run.dropout.module,
                 "Chance of leaving a layer's adapter out of a step");
  repeatable(app.add_option("--penalty", o.penalties,
                            "Holds transforms near their start: identity:1e-3, orthogonal:1e-3"));
}

void add_data_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--instance-images", o.instance_images, "Folder with the training pictures")
      ->required();
  app.add_option("--instance-prompt", o.run.instance_prompt,
                 "Caption of pictures that have no .txt file beside them");
  app.add_option("--class-prompt", o.run.class_prompt,
                 "Prior preservation: what the class looks like, for example \"a photo of a dog\"");
  app.add_option("--class-images", o.class_images,
                 "Folder with class pictures; missing ones are made [OUT/class_images]");
  app.add_option("--class-count", o.run.class_count, "Class pictures to use")
      ->capture_default_str();
  app.add_option("--prior-weight", o.run.loss.prior_weight, "Weight of the class pictures' loss")
      ->capture_default_str();
  app.add_option("--repeats", o.run.repeats, "How often an epoch shows each picture")
      ->capture_default_str();
  app.add_option("--resolution", o.run.crop.size, "Pixels of a side [the model's own]");
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
  app.add_option("--canny-low", o.canny.low, "Lower threshold of canny")->capture_default_str();
  app.add_option("--canny-high", o.canny.high, "Upper threshold of canny")->capture_default_str();
  app.add_option("--validation-pictures", o.validation_pictures,
                 "Pictures held out to measure, with every sample grid, whether the signal is "
                 "followed")
      ->capture_default_str();
}

void add_loop_options(CLI::App& app, TrainOptions& o) {
  train::TrainerOptions& t = o.run.trainer;
  train::DiffusionLossOptions& l = o.run.loss;
  app.add_option("--steps", t.steps, "Optimiser steps")->capture_default_str();
  app.add_option("--batch-size", l.batch_size, "Pictures at a time")->capture_default_str();
  app.add_option("--gradient-accumulation", t.gradient_accumulation, "Batches per step")
      ->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "Peak [1e-4; 1e-5 for --method full]");
  app.add_option("--learning-rate-schedule", o.schedule, "constant, linear or cosine")
      ->capture_default_str();
  app.add_option("--warmup-steps", t.learning_rate.warmup, "Steps of linear rise")
      ->capture_default_str();
  app.add_option("--betas", o.betas, "AdamW's averages")->capture_default_str();
  app.add_option("--weight-decay", t.adamw.weight_decay,
                 "Pull towards the start: the identity for transforms, zero for the rest")
      ->capture_default_str();
  app.add_option("--clip-norm", t.clip_norm, "Largest gradient norm; 0 = no limit")
      ->capture_default_str();
  app.add_option("--ema", t.ema_decay, "Decay of a moving average of what learns; 0 = none")
      ->capture_default_str();
  app.add_flag("--gradient-checkpointing", o.run.gradient_checkpointing,
               "Less memory for more time: compute activations twice");
  app.add_option("--min-snr-gamma", l.min_snr_gamma, "Min-SNR loss weighting, usually 5; 0 = off")
      ->capture_default_str();
  app.add_option("--noise-offset", l.noise_offset, "Deviation of a constant per channel")
      ->capture_default_str();
  app.add_option("--caption-dropout", l.caption_dropout, "Share of empty captions")
      ->capture_default_str();
  app.add_option("--clip-skip", l.clip_skip, "Text encoder layer, counted from the end")
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Seed of everything random [random]")->transform(whole_number());
}

void add_output_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--out", o.out, "Folder for the adapter, checkpoints, logs and report")
      ->required();
  app.add_option("--save-precision", o.save_precision, "fp32, fp16 or bf16: type of what is saved")
      ->capture_default_str();
  app.add_flag("--resume", o.run.resume, "Go on from the last checkpoint of --out");
  app.add_option("--checkpoint-every", o.run.trainer.checkpoint_every,
                 "Steps between checkpoints; 0 = only at the end and when stopped")
      ->capture_default_str();
  app.add_option("--keep-checkpoints", o.run.trainer.keep_checkpoints, "How many stay")
      ->capture_default_str();
  repeatable(
      app.add_option("--sample-prompt", o.run.samples.prompts,
                     "Prompt of sample pictures; may be given several times [the captions]"));
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
  app.add_flag("--dry-run", o.dry_run, "Show the plan and stop");
}

template <class Number = double>
Number number_in(const std::string& text, const std::string& option) {
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size())
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" is no number");
  return number;
}

std::pair<std::string, std::string> halves(const std::string& text, char separator,
                                           const std::string& option, const std::string& example) {
  const std::size_t middle = text.find(separator);
  if (middle == std::string::npos)
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" cannot be read",
                "write it as " + example);
  return {text.substr(0, middle), text.substr(middle + 1)};
}

void check_share(const char* option, double value) {
  if (!(value >= 0.0 && value < 1.0))
    throw Error(ErrorCode::invalid_argument, option, "must lie in [0, 1)");
}

void check_not_negative(const char* option, double value) {
  if (!(value >= 0.0)) throw Error(ErrorCode::invalid_argument, option, "must not be negative");
}

void check_numbers(const train::FineTuneOptions& run) {
  check_share("--ema", run.trainer.ema_decay);
  check_share("--caption-dropout", run.loss.caption_dropout);
  check_share("--dropout", run.dropout.input);
  check_share("--rank-dropout", run.dropout.rank);
  check_share("--module-dropout", run.dropout.module);
  check_not_negative("--prior-weight", run.loss.prior_weight);
  check_not_negative("--weight-decay", run.trainer.adamw.weight_decay);
  check_not_negative("--clip-norm", run.trainer.clip_norm);
  check_not_negative("--min-snr-gamma", run.loss.min_snr_gamma);
  check_not_negative("--noise-offset", run.loss.noise_offset);
  check_not_negative("--warmup-steps", static_cast<double>(run.trainer.learning_rate.warmup));
  check_not_negative("--checkpoint-every", static_cast<double>(run.trainer.checkpoint_every));
  check_not_negative("--sample-every", static_cast<double>(run.sample_every));
  if (run.class_count < 1 || run.trainer.keep_checkpoints < 1 || run.samples.images < 1 ||
      run.samples.steps < 1)
    throw Error(ErrorCode::invalid_argument,
                "--class-count, --keep-checkpoints, --sample-images, --sample-steps",
                "must be at least 1");
}

/// How far a held-out picture's result follows it, where that needs no network.
train::ControlMetric control_metric(const data::ControlSettings& settings) {
  if (settings.signal == data::ControlSignal::canny && settings.folder.empty())
    return {"F1 of edges",
            [canny = settings.canny](const io::Image& source, const io::Image& made) {
              return eval::edge_agreement(source, made, canny).f1;
            }};
  if (settings.signal == data::ControlSignal::segmentation && settings.folder.empty())
    return {"mIoU of colours", [](const io::Image& source, const io::Image& made) {
              eval::Confusion confusion(data::kColourClasses);
              confusion.add(data::segment_colours(source), data::segment_colours(made));
              return confusion.scores().mean_iou;
            }};
  return {};
}

/// Brings the words of the command line into the library's terms.
void translate(TrainOptions& o) {
  train::FineTuneOptions& run = o.run;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  std::optional<std::uint64_t> seed = o.seed;
  if (!seed && run.resume) seed = train::recorded_seed(o.out);
  run.seed = seed.value_or(std::random_device{}());
  run.model = o.model.empty() ? o.init : o.model;
  run.load.files.variant = o.variant;
  run.load.files.tokenizer = o.tokenizer;
  if (!o.init.empty()) run.load.files.random_seed = run.seed;
  run.load.device = o.common.select_device();
  run.load.precision = o.common.select_precision(run.load.device);
  if (o.prediction == "epsilon" || o.prediction == "v")
    run.load.prediction =
        o.prediction == "v" ? diffusion::Prediction::v : diffusion::Prediction::epsilon;
  else if (!o.prediction.empty())
    throw Error(ErrorCode::invalid_argument, "--prediction",
                "\"" + o.prediction + "\" is not known", "use epsilon or v");
  if (o.save_precision == "auto")
    throw Error(ErrorCode::invalid_argument, "--save-precision", "use fp32, fp16 or bf16");
  run.save_precision = nn::select_precision(o.save_precision, run.load.device);
  run.out = o.out;
  run.instance_images = o.instance_images;
  run.class_images = o.class_images;
  run.cache = o.cache;
  if (o.crop != "centre" && o.crop != "center" && o.crop != "random")
    throw Error(ErrorCode::invalid_argument, "--crop", "\"" + o.crop + "\" is not known",
                "use centre or random");
  run.crop.random = o.crop == "random";
  run.trainer.learning_rate.decay = train::decay_from_name(o.schedule);
  run.trainer.learning_rate.peak = o.learning_rate.value_or(run.method == "full" ? 1e-5 : 1e-4);
  const auto [beta1, beta2] = halves(o.betas, ',', "--betas", "0.9,0.999");
  run.trainer.adamw.beta1 = number_in(beta1, "--betas");
  run.trainer.adamw.beta2 = number_in(beta2, "--betas");
  check_share("--betas", run.trainer.adamw.beta1);
  check_share("--betas", run.trainer.adamw.beta2);
  for (const std::string& text : o.factors) {
    const auto [size, split] = halves(text, '=', "--factors", "320=4x8x10");
    run.factors[number_in<std::int64_t>(size, "--factors")] = adapt::parse_factors(split);
  }
  for (const std::string& text : o.penalties) {
    const auto [name, weight] = halves(text, ':', "--penalty", "identity:1e-3");
    if (name != "identity" && name != "orthogonal")
      throw Error(ErrorCode::invalid_argument, "--penalty", "\"" + name + "\" is not known",
                  "use identity or orthogonal");
    (name == "identity" ? run.identity_penalty : run.orthogonal_penalty) =
        number_in(weight, "--penalty");
  }
  if (o.control.empty() && (!o.control_images.empty() || o.validation_pictures != 0))
    throw Error(ErrorCode::invalid_argument, "--control",
                "--control-images and --validation-pictures need it");
  if (!o.control.empty()) {
    const data::ControlSettings settings{data::control_signal_from_name(o.control), o.canny,
                                         o.control_images};
    run.control = {settings, pipeline::control_kind_from_name(o.control_network),
                   o.validation_pictures, control_metric(settings)};
  }
  check_numbers(run);
}

nlohmann::json plan_json(const train::FineTunePlan& plan) {
  nlohmann::json captions = nlohmann::json::array();
  for (const auto& [caption, tokens] : plan.examples)
    captions.push_back({{"caption", caption}, {"tokens", tokens}});
  return {{"model", plan.model_kind},
          {"pictures", plan.pictures},
          {"captions_from_files", plan.captions},
          {"captions", captions},
          {"class_pictures", plan.class_pictures},
          {"class_pictures_to_make", plan.class_to_make},
          {"method", plan.method},
          {"layers", plan.layers},
          {"parameters", plan.parameters},
          {"control_parameters", plan.control_parameters},
          {"validation_pictures", plan.validation},
          {"resolution", plan.resolution},
          {"steps", plan.steps},
          {"first_step", plan.first_step},
          {"epochs", plan.epochs},
          {"expected_bytes", plan.expected_bytes}};
}

void show_plan(const train::FineTunePlan& plan, const TrainOptions& o) {
  const auto line = [](const char* what, const std::string& text) {
    std::fprintf(stderr, "  %-14s %s\n", what, printable(text).c_str());
  };
  char text[200];
  std::fprintf(stderr, "The plan:\n");
  line("model", plan.model_kind + " on " + o.run.load.device.str() + " in " +
                    nn::precision_name(o.run.load.precision));
  line("pictures", std::to_string(plan.pictures) + " of " + o.instance_images + " (" +
                       plan.folder_rule + "), " + std::to_string(plan.captions) +
                       " with captions of their own");
  for (const auto& [caption, tokens] : plan.examples)
    line("caption", "\"" + caption + "\" (" + std::to_string(tokens) + " tokens)");
  if (!o.run.class_prompt.empty())
    line("class pictures", std::to_string(plan.class_pictures) + " found, " +
                               std::to_string(plan.class_to_make) + " to make, \"" +
                               o.run.class_prompt + "\"");
  line("method",
       plan.method + (plan.layers == 0 ? "" : " on " + std::to_string(plan.layers) + " layers"));
  for (const adapt::BudgetRow& row : plan.budget) {
    std::snprintf(text, sizeof text, "%3lld layers %lld x %lld (%s, %s): %lld parameters each",
                  static_cast<long long>(row.layers), static_cast<long long>(row.shape.out),
                  static_cast<long long>(row.shape.in), adapt::to_string(row.out).c_str(),
                  adapt::to_string(row.in).c_str(), static_cast<long long>(row.parameters));
    line("budget", text);
  }
  if (o.run.control)
    line("control", o.control + " through " + o.control_network + ", " +
                        human_count(plan.control_parameters) + " parameters, " +
                        std::to_string(plan.validation) + " pictures held out");
  line("parameters", human_count(plan.parameters) + " (" + std::to_string(plan.parameters) + ")");
  std::snprintf(text, sizeof text, "%lld of batch %lld x %lld at %lld pixels, %.1f epochs%s",
                static_cast<long long>(plan.steps), static_cast<long long>(o.run.loss.batch_size),
                static_cast<long long>(o.run.trainer.gradient_accumulation),
                static_cast<long long>(plan.resolution), plan.epochs,
                plan.first_step == 0
                    ? ""
                    : (", going on after step " + std::to_string(plan.first_step)).c_str());
  line("steps", text);
  const train::LearningRate& rate = o.run.trainer.learning_rate;
  const auto at = [&](std::int64_t step) {
    train::LearningRate curve = rate;
    curve.steps = plan.steps;
    return curve.at(step);
  };
  std::snprintf(text, sizeof text, "%s: %.3g at the start, %.3g in the middle, %.3g at the end",
                o.schedule.c_str(), at(0), at(plan.steps / 2), at(plan.steps - 1));
  line("learning rate", text);
  line("memory", "about " + human_bytes(plan.expected_bytes));
  line("seed", std::to_string(o.run.seed));
}

std::string memory_now() {
  long pages = 0, resident = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  constexpr long kPage = 4096;
  return human_bytes(static_cast<std::uint64_t>(resident) * kPage);
}

/// Bars for the stages before training, then one with the loss.
class TrainProgress {
 public:
  TrainProgress(const TrainOptions& options, std::int64_t first_step)
      : silent_(options.common.quiet || options.common.json),
        left_(static_cast<std::size_t>(options.run.trainer.steps - first_step)) {}

  bool stage(const std::string& name, std::size_t total) {
    if (name != stage_) bar_.emplace(name, total, silent_);
    stage_ = name;
    bar_->advance();
    return !interrupted();
  }

  bool step(const train::StepReport& report) {
    if (stage_ != "training") bar_.emplace("training", left_, silent_);
    stage_ = "training";
    loss_ = report.step == 1 || loss_ == 0.0 ? report.loss : 0.95 * loss_ + 0.05 * report.loss;
    char text[64];
    std::snprintf(text, sizeof text, "loss %.4f  ", loss_);
    bar_->advance(text + memory_now());
    return !interrupted();
  }

 private:
  bool silent_;
  std::size_t left_;
  std::string stage_;
  std::optional<Progress> bar_;
  double loss_ = 0.0;
};

int train_run(TrainOptions& o) {
  translate(o);
  train::FineTune run(o.run);
  if (!o.common.quiet && !o.common.json) show_plan(run.plan(), o);
  nlohmann::json result = {{"plan", plan_json(run.plan())}};
  if (!o.dry_run) {
    TrainProgress progress(o, run.plan().first_step);
    train::FineTuneObserver observer;
    observer.progress = [&](const std::string& stage, std::size_t, std::size_t total) {
      return progress.stage(stage, total);
    };
    observer.step = [&](const train::StepReport& report) { return progress.step(report); };
    if (!run.run(observer))
      throw Error(ErrorCode::cancelled, "training", "stopped",
                  "a checkpoint was written; the same command with --resume goes on");
    result["result"] = run.result().string();
    result["report"] = (o.run.out / "report.html").string();
  }
  if (o.common.json) {
    // Paths need not be UTF-8.
    std::printf("%s\n",
                result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else if (!o.dry_run) {
    std::printf("%s\n%s\n", run.result().c_str(), (o.run.out / "report.html").c_str());
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
  return nn::with_ringlet_errors("train", [&] { return train_run(options); });
}

}  // namespace ringlet::app
