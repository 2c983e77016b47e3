#include "ringlet/service/picture_request.h"

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/service/json_fields.h"
#include "ringlet/service/request_json.h"

namespace ringlet::service {
namespace {

void check_prompts(const std::vector<std::string>& prompts) {
  if (prompts.empty())
    throw Error(ErrorCode::invalid_argument, Field("prompt"), "a prompt is needed",
                "for example `prompt=\"a photo of a cat\"`");
  for (const std::string& prompt : prompts)
    if (!is_utf8(prompt))
      throw Error(ErrorCode::invalid_argument, Field("prompt"), "the text is not valid UTF-8");
}

void check_control(const PictureRequest& r) {
  if ((r.control_strength || !r.control.empty()) && r.control_image.empty())
    throw Error(ErrorCode::invalid_argument, Field("control_image"),
                "`control`, `control_strength` and `controlnet` need it");
}

/// Thresholds of edges that nobody finds would be ignored.
void check_canny(JsonFields& fields, const PictureRequest& request) {
  for (const char* name : {"canny_low", "canny_high"})
    if (fields.find(name) != nullptr && request.control != "canny")
      throw Error(ErrorCode::invalid_argument, Field(name),
                  "it sets how canny finds edges, but edges are not computed here",
                  "leave it out, or give `control=canny`");
}

void describe_start(OptionList& list, PictureRequest& r) {
  list.add("init_image", r.init_image, "Picture to start from (image to image)");
  list.add("strength", r.strength, "Denoising strength of image to image: 1 ignores the picture")
      .within(Range::between(0, 1))
      .or_else("0.8");
  list.add("mask_image", r.mask_image,
           "Inpainting models, Stable Diffusion 3 and FLUX: mask whose white parts of `init_image` "
           "are repainted");
  list.add("control_image", r.control_image,
           "Control signal to follow (edges, map or landmarks), for an adapter trained with "
           "`control` or for `controlnet`");
  list.add("control", word_choice("control", r.control, {"canny", "segmentation"}),
           "`control_image` is a plain picture, from which this signal is made")
      .or_else("`control_image` is the signal");
  data::describe(list, r.canny);
  list.add("control_strength", r.control_strength, "Strength of the control signal")
      .within(Range::between(0, 2))
      .or_else("1");
  list.add("latents", r.latents,
           "Start noise: a safetensors file with \"latents\" [images, channels, h/8, w/8]");
}

}  // namespace

void describe(OptionList& list, PictureRequest& r) {
  list.add("prompt", r.prompts, "Prompt; may be given several times");
  list.add("negative_prompt", r.negative_prompt, "Negative prompt");
  list.add("steps", r.steps, "Sampling steps")
      .within(Range::between(1, 1000))
      .or_else("the model's own: 30, and fewer for rectified flow");
  diffusion::describe(list, r.sampler);
  list.add("guidance", r.guidance,
           "Classifier-free guidance scale, 1 = off; FLUX.1 dev is told it instead, and schnell "
           "takes none")
      .within(Range::between(0, 1000))
      .or_else("the model's own");
  list.add("true_guidance", r.true_guidance,
           "FLUX.1: classifier-free guidance scale, with the negative prompt")
      .within(Range::between(0, 1000))
      .or_else("1, which is off");
  list.add("guidance_rescale", r.guidance_rescale,
           "Guidance rescale (CFG rescale), against overexposure; 0 = off")
      .within(Range::between(0, 1));
  list.add("eta", r.eta, "eta of ddim; 0 = deterministic").within(Range::between(0, 1));
  list.add("seed", r.seed, "Seed of the first image; the next has seed + 1").or_else("random");
  list.add("images", r.images, "Images per prompt").within(Range::between(1, 10000));
  list.add("batch_size", r.batch_size,
           "Batch size: images computed at a time; does not change them")
      .within(Range::between(1, 1024));
  list.add("width", r.width, "Pixels").or_else("the model's own");
  list.add("height", r.height, "Pixels").or_else("the model's own");
  list.add("clip_skip", r.clip_skip, "Text encoder layer to use, counted from the end (1 = last)");
  describe_start(list, r);
}

void check(const PictureRequest& request) {
  PictureRequest r = request;
  check_prompts(r.prompts);
  OptionList list;
  describe(list, r);
  list.check();
  if (r.strength && r.init_image.empty())
    throw Error(ErrorCode::invalid_argument, Field("strength"), "it needs `init_image`");
  check_control(r);
}

PictureRequest picture_request_from_json(const Json& json) {
  PictureRequest r;
  OptionList list;
  describe(list, r);
  JsonFields fields(json);
  read_options(fields, list);
  check_canny(fields, r);
  fields.finish();
  check(r);
  return r;
}

Json to_json(const PictureRequest& request) {
  PictureRequest r = request;
  OptionList list;
  describe(list, r);
  Json json = set_values(list);
  if (r.negative_prompt) json["negative_prompt"] = *r.negative_prompt;  // "" is not none
  if (r.control != "canny") {
    json.erase("canny_low");
    json.erase("canny_high");
  }
  return json;
}

}  // namespace ringlet::service
