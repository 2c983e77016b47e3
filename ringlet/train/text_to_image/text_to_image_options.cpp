#include "ringlet/train/text_to_image/text_to_image_options.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"

namespace ringlet::train {
namespace {

void describe_pictures(OptionList& list, TextToImageOptions& o) {
  list.add("instance_images", o.instance_images,
           "Folder with the training pictures: .png, .jpg, .webp or .bmp files; needed unless "
           "data sets are given");
  list.add("instance_prompt", o.instance_prompt,
           "Caption of pictures that have no .txt or .caption file beside them");
  list.add("class_prompt", o.class_prompt,
           "Prior preservation: prompt of the class, for example \"a photo of a dog\"")
      .repeated();
  list.add("class_images", o.class_images, "Folder with class pictures; missing ones are made")
      .or_else("OUT/class_images");
  list.add("class_count", o.class_count,
           "Class pictures to use, the first by name where there are more")
      .within(Range::at_least(1))
      .repeated();
  list.add("prior_weight", o.loss.prior_weight,
           "Prior preservation: weight of the class pictures' loss")
      .within(Range::at_least(0))
      .repeated();
  list.add("repeats", o.repeats, "How often an epoch uses each picture").within(Range::above(0));
  list.add("resolution", data::square_size("resolution", o.crop.size),
           "Side of the training pictures in pixels")
      .or_else("the model's own")
      .repeated();
  list.add("crop", choice("crop", o.crop.random, data::kCropPlaceNames),
           "Where pictures are cut: in the centre, or at eight random places each")
      .repeated();
  list.add("flip", o.crop.flip, "Also use mirrored pictures").repeated();
  list.add("validation_images", o.validation_images,
           "Folder with pictures that are not trained on: the loss on them, at fixed noise, is the "
           "score \"validation loss\" of every observation");
  list.add("cache", o.cache, "Folder to cache encoded pictures (latents) in");
  describe(list, o.data);
}

void describe_control(OptionList& list, ControlTraining& o) {
  list.add("control", choice("control", o.signal, data::kControlSignalNames),
           "Signal that pictures are to follow")
      .repeated();
  list.add("control_images", o.images,
           "Folder with the control signals, one file per picture, of the same name: maps, or "
           ".json/.pts landmarks; canny and segmentation are computed without it");
  list.add("control_network", choice("control_network", o.network, pipeline::kControlKindNames),
           "encoder: a small one that is trained with the adapter and saved in its file; "
           "channels: the first layer sees the picture's latents, too, and is saved there; "
           "controlnet: a ControlNet (Stable Diffusion 1, 2 and XL), saved beside it in diffusers' "
           "format")
      .repeated();
  data::describe(list, o.canny);
  for (const char* threshold : {"canny_low", "canny_high"}) list.at(threshold).repeated();
  list.add("validation_pictures", o.validation_pictures,
           "Pictures to leave out of training, 0 or at least 2: they become the samples, in place "
           "of prompts, and show whether the signal is followed; 0 = no samples")
      .within(Range::at_least(0));
}

void describe_rule(OptionList& list, DiffusionLossOptions& l) {
  diffusion::LossRule& rule = l.rule;
  list.add("loss", choice("loss", rule.kind, diffusion::kLossNames),
           "What becomes of the network's errors; huber and smooth-l1 are kohya's")
      .repeated();
  list.add("huber_schedule",
           choice("huber_schedule", rule.huber_schedule, diffusion::kHuberScheduleNames),
           "huber, smooth-l1: how the width follows from the noise level")
      .repeated();
  list.add("huber_c", rule.huber_c, "huber, smooth-l1: the width where there is most noise")
      .within(Range::above(0))
      .repeated();
  list.add("debiased_loss", rule.debiased, "Weight of debiased estimation: 1 / root of SNR")
      .repeated();
  list.add("p2_gamma", rule.p2_gamma, "P2 loss weighting, usually 1; 0 = off")
      .within(Range::at_least(0))
      .repeated("P2 gamma");
  list.add("multires_noise", l.multires.iterations,
           "Layers of coarser noise added to the noise, usually 6; 0 = off")
      .within(Range::between(0, 20))
      .repeated();
  list.add("multires_discount", l.multires.discount, "Share of each layer in the one before")
      .within(Range::inside(0, 1))
      .repeated();
  list.add("input_perturbation", l.input_perturbation,
           "Deviation of what is added to the noise that the network sees, usually 0.1; 0 = off")
      .within(Range::at_least(0))
      .repeated();
}

/// Checkpoints of earlier versions have no others, and do not say so.
void erase_usual_rule(Json& settings, const DiffusionLossOptions& l) {
  DiffusionLossOptions given = l, usual;
  OptionList now, before;
  describe_rule(now, given);
  describe_rule(before, usual);
  for (std::size_t i = 0; i < now.all().size(); ++i)
    if (now.all()[i].value() == before.all()[i].value()) settings.erase(now.all()[i].setting);
}

void describe_loss(OptionList& list, TextToImageOptions& o) {
  DiffusionLossOptions& l = o.loss;
  list.add("gradient_checkpointing", o.gradient_checkpointing,
           "Gradient checkpointing: less memory, more time");
  nn::describe(list, o.load.storage).repeated();
  pipeline::describe_text_tokens(list, o.load.files);
  list.at("text_tokens").repeated();
  list.add("min_snr_gamma", l.rule.min_snr_gamma, "Min-SNR loss weighting, usually 5; 0 = off")
      .within(Range::at_least(0))
      .repeated("min-SNR gamma");
  describe_rule(list, l);
  list.add("noise_offset", l.noise_offset, "Deviation of a constant added per channel; 0 = off")
      .within(Range::at_least(0))
      .repeated();
  list.add("caption_dropout", l.caption_dropout, "Share of captions replaced by empty ones")
      .within(Range::share())
      .repeated();
  list.add("clip_skip", l.clip_skip, "Text encoder layer to use, counted from the end (1 = last)")
      .repeated();
}

void describe_times(OptionList& list, DiffusionLossOptions& l) {
  diffusion::TrainingTimes& t = l.times;
  list.add("time_density",
           choice("time_density", t.distribution, diffusion::kTimeDistributionNames),
           "Density of the training times, from little noise to much")
      .or_else("logit-normal for rectified flow (Stable Diffusion 3, FLUX), otherwise uniform")
      .repeated();
  list.add("time_mean", t.mean, "logit-normal: mean of the logit; above 0 = more noise")
      .or_else("0")
      .repeated();
  list.add("time_deviation", t.deviation, "logit-normal: deviation of the logit")
      .within(Range::above(0))
      .or_else("1")
      .repeated();
  list.add("mode_scale", t.mode_scale, "mode: its scale").or_else("1.29").repeated();
  list.add("min_time", t.least,
           "Least training time, from 0 to 1; kohya's min_timestep divided by 1000")
      .within(Range::share())
      .repeated();
  list.add("max_time", t.most, "Largest training time").within(Range::between(0, 1)).repeated();
  list.add("sigma_weighting",
           choice("sigma_weighting", t.weighting, diffusion::kSigmaWeightingNames),
           "Rectified flow: weight of the loss by noise level")
      .or_else("none")
      .repeated();
  list.add("flow_shift", t.shift, "Rectified flow: shift of the training times; 1 = none")
      .within(Range::above(0))
      .or_else("the model's own, by the pictures' size where it has it so")
      .repeated();
  list.add("training_guidance", l.guidance,
           "FLUX.1 dev: the guidance scale that the model is told in training")
      .within(Range::between(0, 1000))
      .or_else("3.5")
      .repeated();
}

void describe_samples(OptionList& list, SampleOptions& o) {
  list.add("sample_prompt", o.prompts, "Prompt of sample pictures; may be given several times")
      .or_else("the captions; with `control` the validation pictures instead");
  list.add(
      "sample_prompts", o.prompts_file,
      "File of sample prompts as sd-scripts reads it: one per line with its own negative prompt, "
      "size, seed, steps, scales and sampler");
  list.add("sample_images", o.images, "Pictures per sample prompt").within(Range::at_least(1));
  list.add("sample_steps", o.steps, "Sampling steps").within(Range::at_least(1));
  list.add("sample_guidance", o.guidance, "Guidance scale of samples and class pictures")
      .within(Range::between(0, 1000))
      .or_else("the model's own");
  list.add("sample_seed", o.seed, "First seed of samples");
}

/// What is seen of a run with a control network are its held-out pictures.
void check_control_samples(const TextToImageOptions& o, const RunOptions& run) {
  const std::int64_t held_out = o.control.validation_pictures;
  if (held_out == 1)
    throw Error(ErrorCode::invalid_argument, Field("validation_pictures"),
                "one is too few: the loss with the picture's signal is compared with the loss with "
                "another picture's",
                "give at least 2");
  if (!o.samples.prompts.empty() || !o.samples.prompts_file.empty())
    throw Error(ErrorCode::invalid_argument,
                Field(o.samples.prompts.empty() ? "sample_prompts" : "sample_prompt"),
                "a prompt has no control signal: with `control`, samples are made from held-out "
                "pictures",
                "leave it out, and give `validation_pictures=2` or more");
  if (run.observe_every > 0 && held_out == 0)
    throw Error(ErrorCode::invalid_argument, Field("sample_every"),
                "no samples are possible: with `control`, samples are made from held-out "
                "pictures",
                "give `validation_pictures=2` or more");
}

void check_control(const TextToImageOptions& o, const RunOptions& run) {
  const bool none = !run.full() && !run.adapts();
  const bool controlnet = o.control && o.control.network == pipeline::ControlKind::controlnet;
  if (none && !controlnet)
    throw Error(ErrorCode::invalid_argument, Field("method"), "none leaves nothing to train",
                "it needs `control=SIGNAL` `control_network=controlnet`");
  if (none && o.train_text_encoder)
    throw Error(ErrorCode::invalid_argument, Field("train_text_encoder"),
                "`method=none` trains a ControlNet alone", "leave one of them out");
  if (!o.control) return;
  if (run.full())
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "it applies to adapters, not to `method=full`");
  if (o.has_class_pictures())
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "class pictures of `class_prompt` have no control signal", "leave one of them out");
  if (!o.validation_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("validation_images"),
                "these pictures have no control signal",
                "give `validation_pictures=2` or more instead");
  data::check_signal_folder(o.control.settings(), Field("control_images"));
  check_control_samples(o, run);
}

/// A run has one folder, or data sets that say where their own are.
void check_sets(const TextToImageOptions& o) {
  if (o.data.sets.empty()) {
    if (o.instance_images.empty())
      throw Error(ErrorCode::invalid_argument, Field("instance_images"),
                  "the folder with the training pictures is needed");
    return;
  }
  if (!o.instance_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("instance_images"),
                "the data sets have their own folders", "leave it out, or make it one of them");
  if (!o.data.metadata.empty())
    throw Error(ErrorCode::invalid_argument, Field("metadata_file"),
                "the data sets have their own metadata", "leave it out");
  if (std::ranges::all_of(o.data.sets, &data::Dataset::is_class))
    throw Error(ErrorCode::invalid_argument, Field("instance_images"),
                "all data sets hold class pictures, so that there is nothing to learn",
                "give one with pictures of the subject");
  if (o.data.any_class_set() && !o.class_prompt.empty())
    throw Error(ErrorCode::invalid_argument, Field("class_prompt"),
                "the data sets hold class pictures already",
                "leave it out, or the data sets with class pictures");
}

}  // namespace

void describe(OptionList& list, TextToImageOptions& o) {
  list.add("train_text_encoder", o.train_text_encoder, "Also train the text encoder")
      .repeated("text encoder");
  describe_pictures(list, o);
  describe_control(list, o.control);
  describe_loss(list, o);
  describe_times(list, o.loss);
  describe_samples(list, o.samples);
}

Json settings_of(const TextToImageOptions& options) {
  TextToImageOptions described = options;
  OptionList list;
  describe(list, described);
  Json settings = list.settings();
  // What is left to the model is no setting: runs of other families never had these.
  OptionList times;
  describe_times(times, described.loss);
  for (const Option& option : times.all())
    if (settings.at(option.setting).is_null() || settings.at(option.setting) == "")
      settings.erase(option.setting);
  if (options.loss.times.least == 0.0) settings.erase("min time");
  if (options.loss.times.most == 1.0) settings.erase("max time");
  if (options.load.files.zero_terminal_snr) settings["zero terminal SNR"] = true;
  erase_usual_rule(settings, options.loss);
  if (options.load.files.text_tokens == 0) settings.erase(list.at("text_tokens").setting);
  if (options.class_prompt.empty()) settings["class count"] = 0;
  complete_settings(settings, options.data);
  if (options.control) return settings;
  OptionList unused;
  describe_control(unused, described.control);
  for (const Option& option : unused.all()) settings.erase(option.setting);
  return settings;
}

void check_options(const TextToImageOptions& o, const RunOptions& run) {
  TextToImageOptions described = o;
  OptionList list;
  describe(list, described);
  list.check();
  check_base_storage(o.load.storage, run);
  check_control(o, run);
  check(o.data);
  check_sets(o);
  if (o.class_prompt.empty() && !o.class_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("class_images"),
                "prior preservation needs `class_prompt` as well",
                "for example `class_prompt=\"a photo of a dog\"`");
}

data::Dataset usual_dataset(const TextToImageOptions& o) {
  data::Dataset usual;
  usual.prompt = o.instance_prompt;
  usual.repeats = o.repeats;
  usual.resolution = o.crop.size;
  usual.random_crop = o.crop.random;
  usual.flip = o.crop.flip;
  usual.caption_dropout = o.loss.caption_dropout;
  usual.buckets = o.data.buckets;
  usual.captions = o.data.captions;
  usual.masks = o.data.masks;
  usual.mask_images = o.data.mask_images;
  return usual;
}

std::vector<data::Dataset> datasets_of(const TextToImageOptions& o) {
  if (!o.data.sets.empty()) return o.data.sets;
  data::Dataset one = usual_dataset(o);
  one.folder = o.instance_images;
  one.metadata = o.data.metadata;
  return {one};
}

std::string place_of_pictures(const TextToImageOptions& o) {
  if (o.data.sets.size() > 1) return "several data sets";
  return datasets_of(o).front().pictures().string();
}

std::filesystem::path class_folder(const TextToImageOptions& options, const RunOptions& run) {
  return options.class_images.empty() ? run.out / "class_images" : options.class_images;
}

}  // namespace ringlet::train
