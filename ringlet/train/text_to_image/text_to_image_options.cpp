#include "ringlet/train/text_to_image/text_to_image_options.h"

#include "ringlet/core/error.h"

namespace ringlet::train {
namespace {

/// What is seen of a run with a control network are its held-out pictures.
void check_control_samples(const TextToImageOptions& o, const RunOptions& run) {
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
  if (run.observe_every > 0 && held_out == 0)
    throw Error(ErrorCode::invalid_argument, Field("sample_every"),
                "there is nothing to sample: with `control`, samples are made from held-out "
                "pictures",
                "give `validation_pictures=2` or more");
}

void check_control(const TextToImageOptions& o, const RunOptions& run) {
  const bool none = !run.full() && !run.adapts();
  const bool controlnet = o.control && o.control->network == pipeline::ControlKind::controlnet;
  if (none && !controlnet)
    throw Error(ErrorCode::invalid_argument, Field("method"), "none leaves nothing to learn",
                "it goes with `control=SIGNAL` `control_network=controlnet`");
  if (none && o.train_text_encoder)
    throw Error(ErrorCode::invalid_argument, Field("train_text_encoder"),
                "`method=none` trains a ControlNet alone", "leave one of them out");
  if (!o.control) return;
  if (run.full())
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "it goes with adapters, not with `method=full`");
  if (!o.class_prompt.empty())
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "class pictures of `class_prompt` have no control signal", "leave one of them out");
  data::check_signal_folder(o.control->settings, Field("control_images"));
  check_control_samples(o, run);
}

}  // namespace

void check_options(const TextToImageOptions& o, const RunOptions& run) {
  check_control(o, run);
  if (o.instance_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("instance_images"),
                "the folder with the training pictures is needed");
  if (o.repeats < 1)
    throw Error(ErrorCode::invalid_argument, Field("repeats"), "must be larger than 0");
  if (!o.class_prompt.empty() && o.class_count < 1)
    throw Error(ErrorCode::invalid_argument, Field("class_count"), "must be larger than 0");
  if (o.class_prompt.empty() && !o.class_images.empty())
    throw Error(ErrorCode::invalid_argument, Field("class_images"),
                "prior preservation needs `class_prompt` as well",
                "for example `class_prompt=\"a photo of a dog\"`");
}

std::filesystem::path class_folder(const TextToImageOptions& options, const RunOptions& run) {
  return options.class_images.empty() ? run.out / "class_images" : options.class_images;
}

}  // namespace ringlet::train
