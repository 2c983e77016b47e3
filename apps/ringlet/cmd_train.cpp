#include "canny_options.h"
#include "model_options.h"
#include "options.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
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
  ModelOptions files;
  std::string model, init, instance_images, class_images, cache;
  std::string crop = "centre";
  std::string control, control_images, control_network = "encoder";
  data::CannyThresholds canny;
  std::int64_t resolution = 0;  ///< pixels of a side; 0 = the model's own
  std::int64_t validation_pictures = 0;
};

void add_model_options(OptionList& list, TrainOptions& o) {
  list.add("model", o.model, "Model folder (diffusers) or single .safetensors checkpoint");
  list.add("init", o.init, "Model folder whose parts may lack weights: those start at random");
  o.files.add_files(list);
  o.files.add_prediction(list);
  o.training.add_method(
      list, o.run,
      "What learns: parts such as trm(rank=2), tr(rank=6), lora(rank=4,alpha=4) joined by +, an "
      "alias (tlora, tlora-star), full for all weights, or none for a ControlNet alone",
      "Layers to adapt: attention, attention+ff, all-linear, all, text-encoder; may be given "
      "several times",
      "attention");
  list.add("train_text_encoder", o.task.train_text_encoder, "The text encoder learns as well")
      .repeated("text encoder");
}

void add_data_options(OptionList& list, TrainOptions& o) {
  list.add("instance_images", o.instance_images,
           "Folder with the training pictures: .png, .jpg, .webp or .bmp files")
      .required();
  list.add("instance_prompt", o.task.instance_prompt,
           "Caption of pictures that have no .txt or .caption file beside them");
  list.add("class_prompt", o.task.class_prompt,
           "Prior preservation: what the class looks like, for example \"a photo of a dog\"")
      .repeated();
  list.add("class_images", o.class_images, "Folder with class pictures; missing ones are made")
      .or_else("OUT/class_images");
  list.add("class_count", o.task.class_count,
           "Class pictures to use, the first by name where there are more")
      .within(Range::at_least(1))
      .repeated();
  list.add("prior_weight", o.task.loss.prior_weight, "Weight of the class pictures' loss")
      .within(Range::at_least(0))
      .repeated();
  list.add("repeats", o.task.repeats, "How often an epoch shows each picture");
  list.add("resolution", o.resolution, "Pixels of a side").or_else("the model's own").repeated();
  list.add("crop", o.crop, "centre, or random: eight places of each picture").repeated();
  list.add("flip", o.task.crop.flip, "Also show pictures mirrored").repeated();
  list.add("cache", o.cache, "Folder that keeps encoded pictures for later runs");
}

void add_control_options(OptionList& list, TrainOptions& o) {
  list.add("control", o.control,
           "Pictures that follow a signal: canny, segmentation, landmark or map")
      .repeated();
  list.add("control_images", o.control_images,
           "Folder with the signals, one file per picture, of the same name: maps, or .json/.pts "
           "landmarks; canny and segmentation are computed without it");
  list.add("control_network", o.control_network,
           "encoder: a small one that is trained with the adapter and saved in its file; "
           "controlnet: a ControlNet, saved beside it as diffusers reads it")
      .repeated();
  add_canny(list, o.canny);
  list.add("validation_pictures", o.validation_pictures,
           "Pictures held out, two at least, to show and to measure whether the signal is "
           "followed: they take the place of sample prompts; 0 = no samples");
}

void add_loop_options(OptionList& list, TrainOptions& o) {
  train::DiffusionLossOptions& l = o.task.loss;
  o.training.add_loop(list, o.run.trainer, o.run.batch_size, "Pictures at a time");
  list.add("gradient_checkpointing", o.task.gradient_checkpointing,
           "Less memory for more time: compute activations twice");
  list.add("min_snr_gamma", l.min_snr_gamma, "Min-SNR loss weighting, usually 5; 0 = off")
      .within(Range::at_least(0))
      .repeated("min-SNR gamma");
  list.add("noise_offset", l.noise_offset, "Deviation of a constant per channel")
      .within(Range::at_least(0))
      .repeated();
  list.add("caption_dropout", l.caption_dropout, "Share of empty captions")
      .within(Range::share())
      .repeated();
  add_clip_skip(list, l.clip_skip);
}

void add_output_options(OptionList& list, TrainOptions& o) {
  o.training.add_output(list);
  list.add("sample_prompt", o.task.samples.prompts,
           "Prompt of sample pictures; may be given several times")
      .or_else("the captions; with --control the validation pictures instead");
  list.add("sample_every", o.run.observe_every,
           "Steps between sample grids; 0 = before and after only")
      .within(Range::at_least(0));
  list.add("sample_images", o.task.samples.images, "Pictures per sample prompt")
      .within(Range::at_least(1));
  list.add("sample_steps", o.task.samples.steps, "Sampling steps").within(Range::at_least(1));
  list.add("sample_guidance", o.task.samples.guidance, "Guidance scale of samples");
  list.add("sample_seed", o.task.samples.seed, "First seed of samples");
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
  task.load.precision = o.common.select_precision(task.load.device, nn::Work::training);
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
  OptionList list;
  CLI::App app(
      "Teach a model a subject or style from a folder of pictures.\nExample:\n  ringlet train "
      "--model MODEL --instance-images photos --instance-prompt \"a photo of sks dog\" --method "
      "\"trm(rank=2)+tr(rank=6)\" --steps 800 --out runs/dog",
      "train");
  add_model_options(list, options);
  add_data_options(list, options);
  add_control_options(list, options);
  add_loop_options(list, options);
  add_output_options(list, options);
  options.common.add_to(list);
  options.common.add_arithmetic_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("train", [&] {
    check_given(app, options);
    translate(options);
    return carry_out(options.run, train::text_to_image(options.task), options.training,
                     options.common, list);
  });
}

}  // namespace ringlet::app
