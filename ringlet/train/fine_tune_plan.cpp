// The half of FineTune that reads and plans; fine_tune.cpp is the half that runs.
#include <algorithm>
#include <limits>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/sha256.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/fine_tune.h"
#include "ringlet/train/fine_tune_internal.h"
#include "ringlet/train/memory_estimate.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

void check_positive(const Field& option, double value) {
  if (!(value > 0.0 && value <= std::numeric_limits<double>::max()))
    throw Error(ErrorCode::invalid_argument, option, "must be larger than 0");
}

/// What is seen of a run with a control network are its held-out pictures.
void check_control_samples(const FineTuneOptions& o) {
  const std::int64_t held_out = o.control->validation_pictures;
  if (held_out < 0)
    throw Error(ErrorCode::invalid_argument, Field("validation_pictures"), "must not be negative");
  if (held_out == 1)
    throw Error(ErrorCode::invalid_argument, Field("validation_pictures"),
                "one is too few: the loss with a picture's own signal is compared with that with "
                "another picture's",
                "give 2 at least");
  if (!o.samples.prompts.empty())
    throw Error(ErrorCode::invalid_argument, Field("sample_prompt"),
                "a prompt has no control signal: with `control`, samples are made from held-out "
                "pictures",
                "leave it out, and give `validation_pictures=2` or more");
  if (o.sample_every > 0 && held_out == 0)
    throw Error(ErrorCode::invalid_argument, Field("sample_every"),
                "there is nothing to sample: with `control`, samples are made from held-out "
                "pictures",
                "give `validation_pictures=2` or more");
}

void check_control(const FineTuneOptions& o) {
  const bool controlnet = o.control && o.control->network == pipeline::ControlKind::controlnet;
  const bool nothing = std::holds_alternative<NoWeights>(o.learning);
  if (nothing && !controlnet)
    throw Error(ErrorCode::invalid_argument, Field("method"), "none leaves nothing to learn",
                "it goes with `control=SIGNAL` `control_network=controlnet`");
  if (nothing && o.train_text_encoder)
    throw Error(ErrorCode::invalid_argument, Field("train_text_encoder"),
                "`method=none` trains a ControlNet alone", "leave one of them out");
  if (!o.control) return;
  if (o.full())
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "it goes with adapters, not with `method=full`");
  if (!o.class_prompt.empty())
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "class pictures of `class_prompt` have no control signal", "leave one of them out");
  data::check_signal_folder(o.control->settings, Field("control_images"));
  check_control_samples(o);
}

/// Names of given signals with the sizes of maps, as for pictures, and the contents of landmarks.
/// "" where signals are computed.
std::string control_fingerprint(const data::ControlSettings& settings,
                                const std::vector<data::Picture>& pictures) {
  std::string text;
  for (const fs::path& file : data::control_files(settings, data::paths_of(pictures)))
    text +=
        file.filename().string() + "\n" +
        (settings.signal == data::ControlSignal::landmark ? sha256_file(file)
                                                          : std::to_string(fs::file_size(file))) +
        "\n";
  return text.empty() ? "" : sha256_text(text);
}

/// The contents of given maps; "" where there are none.
std::string map_contents(const data::ControlSettings& settings,
                         const std::vector<data::Picture>& pictures) {
  if (settings.signal == data::ControlSignal::landmark) return "";
  std::string text;
  for (const fs::path& file : data::control_files(settings, data::paths_of(pictures)))
    text += sha256_file(file) + "\n";
  return text.empty() ? "" : sha256_text(text);
}

/// Signals that lie beside their pictures are no files without a use.
void remove_signals(std::vector<data::FolderNote>& notes, const fs::path& folder,
                    const std::vector<fs::path>& signals) {
  for (data::FolderNote& note : notes)
    std::erase_if(note.files, [&](const fs::path& file) {
      return std::ranges::any_of(signals, [&](const fs::path& signal) {
        std::error_code problem;
        return signal.filename() == file.filename() &&
               fs::equivalent(signal, folder / file, problem);
      });
    });
  std::erase_if(notes, [](const data::FolderNote& note) { return note.files.empty(); });
}

}  // namespace

void check_options(const FineTuneOptions& o) {
  check_control(o);
  if (o.instance_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("instance_images"),
                "the folder with the training pictures is needed");
  if (o.out.empty()) throw Error(ErrorCode::invalid_argument, Field("out"), "a folder is needed");
  check_positive(Field("steps"), static_cast<double>(o.trainer.steps));
  check_positive(Field("batch_size"), static_cast<double>(o.loss.batch_size));
  check_positive(Field("gradient_accumulation"),
                 static_cast<double>(o.trainer.gradient_accumulation));
  check_positive(Field("repeats"), static_cast<double>(o.repeats));
  check_positive(Field("learning_rate"), o.trainer.learning_rate.peak);
  if (!o.class_prompt.empty())
    check_positive(Field("class_count"), static_cast<double>(o.class_count));
  check_adapter_options(o);
  if (o.class_prompt.empty() && !o.class_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("class_images"),
                "prior preservation needs `class_prompt` as well",
                "for example `class_prompt=\"a photo of a dog\"`");
  refuse_other_run(o.out, o.resume);
}

/// Names, sizes and captions of pictures: what a resumed run must find unchanged. Their contents
/// are a setting of their own, which older checkpoints lack.
std::string fingerprint(const std::vector<data::Picture>& pictures) {
  std::string text;
  for (const data::Picture& picture : pictures)
    text += picture.path.filename().string() + "\n" + std::to_string(fs::file_size(picture.path)) +
            "\n" + picture.caption + "\n" + std::to_string(picture.repeats) + "\n";
  return sha256_text(text);
}

void FineTune::read_pictures() {
  instance_ = data::read_picture_folder(options_.instance_images);
  for (data::Picture& picture : instance_.pictures) {
    picture.repeats *= options_.repeats;
    if (picture.caption.empty()) picture.caption = options_.instance_prompt;
    if (picture.caption.empty())
      throw Error(ErrorCode::invalid_argument, picture.path.string(), "the picture has no caption",
                  "give `instance_prompt=\"a photo of sks dog\"`, or write the caption into " +
                      picture.path.stem().string() + ".txt");
  }
  if (options_.control) hold_out_pictures();
  if (options_.class_prompt.empty()) return;
  if (options_.class_images.empty()) options_.class_images = options_.out / kClassFolder;
  read_class_pictures();
}

void FineTune::hold_out_pictures() {
  remove_signals(
      instance_.notes, options_.instance_images,
      data::control_files(options_.control->settings, data::paths_of(instance_.pictures)));
  const auto wanted = static_cast<std::size_t>(options_.control->validation_pictures);
  const std::size_t count = instance_.pictures.size();
  if (wanted >= count)
    throw Error(ErrorCode::invalid_argument, Field("validation_pictures"),
                "of " + std::to_string(count) + " pictures, " + std::to_string(wanted) +
                    " cannot be held out",
                "leave some to learn from");
  for (std::size_t i = wanted; i-- > 0;) {
    const auto place = instance_.pictures.begin() + static_cast<std::ptrdiff_t>(i * count / wanted);
    validation_pictures_.insert(validation_pictures_.begin(), *place);
    instance_.pictures.erase(place);
  }
}

void FineTune::read_class_pictures() {
  if (!fs::is_directory(options_.class_images)) return;
  // One without pictures will be filled. All of them have one caption, the class prompt.
  data::PictureFolder found = data::read_picture_folder(
      options_.class_images, {.captions = data::Captions::unused, .may_be_empty = true});
  class_pictures_ = std::move(found.pictures);
  plan_.class_notes = std::move(found.notes);
  plan_.class_found = class_pictures_.size();
  const auto wanted = static_cast<std::size_t>(options_.class_count);
  if (class_pictures_.size() > wanted) class_pictures_.resize(wanted);
  for (data::Picture& picture : class_pictures_) picture.caption = options_.class_prompt;
}

void FineTune::make_plan() {
  plan_.model_kind = model_->description().kind;
  plan_.folder_rule = instance_.rule;
  plan_.pictures = instance_.pictures.size();
  plan_.captions = instance_.captions;
  plan_.validation = validation_pictures_.size();
  plan_.notes = instance_.notes;
  plan_.class_pictures = class_pictures_.size();
  if (!options_.class_prompt.empty())
    plan_.class_to_make = static_cast<std::size_t>(options_.class_count) - class_pictures_.size();
  plan_captions();
  plan_.method = learning_text(options_.learning);
  plan_.layers = adapters_ ? adapters_->set().entries().size() : 0;
  if (control_)
    for (const auto& [name, tensor] : control_->tensors())
      plan_.control_parameters += tensor.numel();
  for (const Trainable& trainable :
       with_rate_factors(trainables(), options_.trainer.rate_factors))  // refuses wrong ones early
    plan_.parameters += trainable.value.numel();
  plan_.resolution = options_.crop.size;
  plan_.optimizer = options_.trainer.optimizer.name;
  plan_.steps = options_.trainer.steps;
  std::int64_t shown = 0;
  for (const data::Picture& picture : instance_.pictures) shown += picture.repeats;
  plan_.epochs = static_cast<double>(plan_.steps * options_.trainer.gradient_accumulation *
                                     options_.loss.batch_size) /
                 static_cast<double>(shown);
  const std::int64_t rows = options_.loss.batch_size * (options_.class_prompt.empty() ? 1 : 2);
  plan_.expected_bytes = expected_peak_bytes(
      *model_, {.adapters = adapters_ ? &adapters_->set() : nullptr,
                .parameters = plan_.parameters,
                .optimizer_bytes = options_.trainer.optimizer.bytes_per_parameter,
                .average = options_.trainer.ema_decay > 0.0,
                .full = full(),
                .controlnet = control_ && control_->kind() == pipeline::ControlKind::controlnet,
                .text = options_.loss.train_text,
                .rows = rows,
                .size = options_.crop.size,
                .sampled = options_.control ? std::min<std::int64_t>(plan_.validation, 1)
                                            : options_.samples.images,
                .gradient_checkpointing = options_.gradient_checkpointing});
}

Json FineTune::settings() const {
  const DiffusionLossOptions& l = options_.loss;
  Json settings = {{"method", plan_.method},
                   {"parameters", plan_.parameters},
                   {"pictures", fingerprint(instance_.pictures)},
                   {"pictures' contents", contents_of(instance_.pictures)},
                   {"class prompt", options_.class_prompt},
                   {"class count", options_.class_prompt.empty() ? 0 : options_.class_count},
                   {"prediction", diffusion::prediction_name(model_->schedule().prediction())},
                   {"precision", nn::precision_name(options_.load.precision)},
                   {"resolution", options_.crop.size},
                   {"crop", options_.crop.random ? "random" : "centre"},
                   {"flip", options_.crop.flip},
                   {"seed", options_.seed},
                   {"batch size", l.batch_size},
                   {"prior weight", l.prior_weight},
                   {"min-SNR gamma", l.min_snr_gamma},
                   {"noise offset", l.noise_offset},
                   {"caption dropout", l.caption_dropout},
                   {"clip skip", l.clip_skip},
                   {"text encoder", options_.train_text_encoder}};
  settings.update(settings_of(options_));
  settings.update(settings_of(options_.trainer));
  if (options_.control) {
    const data::ControlSettings& control = options_.control->settings;
    settings["control"] = data::name_of(control.signal);
    settings["control network"] = pipeline::name_of(options_.control->network);
    settings["control thresholds"] = {control.canny.low, control.canny.high};
    std::vector<data::Picture> pictures = instance_.pictures;
    pictures.insert(pictures.end(), validation_pictures_.begin(), validation_pictures_.end());
    settings["control images"] = control_fingerprint(control, pictures);
    if (const std::string maps = map_contents(control, pictures); !maps.empty())
      settings["control images' contents"] = maps;
    settings["validation pictures"] = fingerprint(validation_pictures_);
    settings["validation pictures' contents"] = contents_of(validation_pictures_);
    // The metric in control.csv is that of pictures which are made so.
    if (!validation_pictures_.empty())
      settings["samples"] = {{"seed", options_.samples.seed},
                             {"steps", options_.samples.steps},
                             {"guidance", options_.samples.guidance}};
  }
  return settings;
}

}  // namespace ringlet::train
