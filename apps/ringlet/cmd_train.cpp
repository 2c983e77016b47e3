#include "canny_options.h"
#include "model_options.h"
#include "options.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/control_metric.h"
#include "ringlet/train/text_to_image_task.h"
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
  app.add_flag("--train-text-encoder", o.task.train_text_encoder,
               "The text encoder learns as well");
}

void add_data_options(CLI::App& app, TrainOptions& o) {
  app.add_option("--instance-images", o.instance_images,
                 "Folder with the training pictures: .png, .jpg, .webp or .bmp files")
      ->required();
  app.add_option("--instance-prompt", o.task.instance_prompt,
                 "Caption of pictures that have no .txt or .caption file beside them");
  app.add_option("--class-prompt", o.task.class_prompt,
                 "Prior preservation: what the class looks like, for example \"a photo of a dog\"");
  app.add_option("--class-images", o.class_images,
                 "Folder with class pictures; missing ones are made [OUT/class_images]");
  app.add_option("--class-count", o.task.class_count,
                 "Class pictures to use, the first by name where there are more")
      ->capture_default_str();
  app.add_option("--prior-weight", o.task.loss.prior_weight, "Weight of the class pictures' loss")
      ->capture_default_str();
  app.add_option("--repeats", o.task.repeats, "How often an epoch shows each picture")
      ->capture_default_str();
  app.add_option("--resolution", o.resolution, "Pixels of a side [the model's own]");
  app.add_option("--crop", o.crop, "centre, or random: eight places of each picture")
      ->capture_default_str();
  app.add_flag("--flip", o.task.crop.flip, "Also show pictures mirrored");
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
  train::DiffusionLossOptions& l = o.task.loss;
  o.training.add_loop(app, o.run.trainer, o.run.batch_size, "Pictures at a time");
  app.add_flag("--gradient-checkpointing", o.task.gradient_checkpointing,
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
      app.add_option("--sample-prompt", o.task.samples.prompts,
                     "Prompt of sample pictures; may be given several times [the captions; with "
                     "--control the validation pictures instead]"));
  app.add_option("--sample-every", o.run.observe_every,
                 "Steps between sample grids; 0 = before and after only")
      ->capture_default_str();
  app.add_option("--sample-images", o.task.samples.images, "Pictures per sample prompt")
      ->capture_default_str();
  app.add_option("--sample-steps", o.task.samples.steps, "Sampling steps")->capture_default_str();
  app.add_option("--sample-guidance", o.task.samples.guidance, "Guidance scale of samples")
      ->capture_default_str();
  app.add_option("--sample-seed", o.task.samples.seed, "First seed of samples")
      ->capture_default_str();
}

void check_numbers(const train::RunOptions& run, const train::TextToImageOptions& task) {
  check_share("--caption-dropout", task.loss.caption_dropout);
  check_not_negative("--prior-weight", task.loss.prior_weight);
  check_not_negative("--min-snr-gamma", task.loss.min_snr_gamma);
  check_not_negative("--noise-offset", task.loss.noise_offset);
  check_not_negative("--sample-every", static_cast<double>(run.observe_every));
  if (task.class_count < 1 || task.samples.images < 1 || task.samples.steps < 1)
    throw Error(ErrorCode::invalid_argument, "--class-count, --sample-images, --sample-steps",
                "must be at least 1");
}

/// Brings the words of the command line into the library's terms.
void translate(TrainOptions& o) {
  train::RunOptions& run = o.run;
  train::TextToImageOptions& task = o.task;
  if (o.model.empty() == o.init.empty())
    throw Error(ErrorCode::invalid_argument, "--model", "give either --model or --init");
  run.seed = o.training.choose_seed();
  task.model = o.model.empty() ? o.init : o.model;
  task.load.files = o.files.files();
  if (!o.init.empty()) task.load.files.random_seed = run.seed;
  task.load.device = o.common.select_device();
  task.load.precision = o.common.select_precision(task.load.device);
  o.training.translate(run, run.trainer);
  run.trainer.choose_threads = o.common.automatic_threads();
  run.save_precision = o.training.storage(task.load.device);
  run.out = o.training.out;
  run.resume = o.training.resume;
  task.instance_images = o.instance_images;
  task.class_images = o.class_images;
  task.cache = o.cache;
  if (o.crop != "centre" && o.crop != "center" && o.crop != "random")
    throw Error(ErrorCode::invalid_argument, "--crop", "\"" + o.crop + "\" is not known",
                "use centre or random");
  task.crop.size = PictureSize::square(o.resolution);
  task.crop.random = o.crop == "random";
  if (!o.control.empty()) {
    const data::ControlSettings settings{
        data::control_signal_from_name(o.control, Field("control")), o.canny, o.control_images};
    task.control = {settings, pipeline::control_kind_from_name(o.control_network),
                    o.validation_pictures, service::control_metric(settings)};
  }
  check_numbers(run, task);
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
    translate(options);
    return carry_out(options.run, train::text_to_image(options.task), options.training,
                     options.common);
  });
}

}  // namespace ringlet::app
