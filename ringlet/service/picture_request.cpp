#include "ringlet/service/picture_request.h"

#include <cstdio>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/service/json_fields.h"

namespace ringlet::service {
namespace {

void check_range(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return;
  char range[64];
  std::snprintf(range, sizeof range, "must lie between %g and %g", low, high);
  throw Error(ErrorCode::invalid_argument, Field(field), range);
}

void check_prompts(const std::vector<std::string>& prompts) {
  if (prompts.empty())
    throw Error(ErrorCode::invalid_argument, Field("prompt"), "a prompt is needed",
                "for example `prompt=\"a photo of a cat\"`");
  for (const std::string& prompt : prompts)
    if (!is_utf8(prompt))
      throw Error(ErrorCode::invalid_argument, Field("prompt"), "the text is not valid UTF-8");
}

void check_control(const PictureRequest& r) {
  if (r.control_strength) check_range("control_strength", *r.control_strength, 0, 2);
  if ((r.control_strength || !r.control.empty()) && r.control_image.empty())
    throw Error(ErrorCode::invalid_argument, Field("control_image"),
                "`control`, `control_strength` and `controlnet` need it");
  if (!r.control.empty() && r.control != "canny" && r.control != "segmentation")
    throw Error(ErrorCode::invalid_argument, Field("control"),
                "\"" + r.control + "\" cannot be made from a picture", "use canny or segmentation");
}

/// Thresholds of edges that nobody finds would be ignored.
void read_canny(JsonFields& fields, PictureRequest& request) {
  for (const auto& [name, value] :
       {std::pair{"canny_low", &request.canny.low}, std::pair{"canny_high", &request.canny.high}})
    if (fields.read(name, *value) && request.control != "canny")
      throw Error(ErrorCode::invalid_argument, Field(name),
                  "it says how canny finds edges in pictures, and none are to be found",
                  "leave it out, or give `control=canny`");
}

void read_prompts(JsonFields& fields, std::vector<std::string>& prompts) {
  const Json* given = fields.find("prompt");
  if (given != nullptr && given->is_string())
    prompts = {given->get<std::string>()};
  else
    fields.read("prompt", prompts);
}

template <class T>
void put(Json& json, const char* name, const std::optional<T>& value) {
  if (value) json[name] = *value;
}

void put(Json& json, const char* name, const std::string& text) {
  if (!text.empty()) json[name] = text;
}

}  // namespace

diffusion::SamplerChoice sampler_choice(const std::string& sampler, const std::string& spacing) {
  diffusion::SamplerChoice choice;
  if (!sampler.empty()) choice = diffusion::find_sampler(sampler);
  if (spacing == "leading" || spacing == "trailing" || spacing == "linspace")
    choice.spacing = diffusion::spacing_from_name(spacing, "spacing");
  else if (!spacing.empty())
    throw Error(ErrorCode::invalid_argument, Field("spacing"), "\"" + spacing + "\" is not known",
                "use leading, trailing or linspace");
  return choice;
}

void check(const PictureRequest& r) {
  check_prompts(r.prompts);
  check_range("steps", static_cast<double>(r.steps), 1, 1000);
  check_range("images", static_cast<double>(r.images), 1, 10000);
  check_range("batch_size", static_cast<double>(r.batch_size), 1, 1024);
  check_range("guidance", r.guidance.value_or(1.0), 0, 1000);
  check_range("guidance_rescale", r.guidance_rescale, 0, 1);
  check_range("eta", r.eta, 0, 1);
  if (r.strength) check_range("strength", *r.strength, 0, 1);
  if (r.strength && r.init_image.empty())
    throw Error(ErrorCode::invalid_argument, Field("strength"), "it needs `init_image`");
  check_control(r);
  sampler_choice(r.sampler, r.spacing);
}

PictureRequest picture_request_from_json(const Json& json) {
  PictureRequest r;
  JsonFields fields(json);
  read_prompts(fields, r.prompts);
  fields.read("negative_prompt", r.negative_prompt);
  fields.read("images", r.images);
  fields.read("batch_size", r.batch_size);
  fields.read("seed", r.seed);
  fields.read("width", r.width);
  fields.read("height", r.height);
  fields.read("steps", r.steps);
  fields.read("sampler", r.sampler);
  fields.read("spacing", r.spacing);
  fields.read("guidance", r.guidance);
  fields.read("guidance_rescale", r.guidance_rescale);
  fields.read("eta", r.eta);
  fields.read("clip_skip", r.clip_skip);
  fields.read("init_image", r.init_image);
  fields.read("strength", r.strength);
  fields.read("mask_image", r.mask_image);
  fields.read("latents", r.latents);
  fields.read("control_image", r.control_image);
  fields.read("control", r.control);
  read_canny(fields, r);
  fields.read("control_strength", r.control_strength);
  fields.finish();
  check(r);
  return r;
}

Json to_json(const PictureRequest& r) {
  Json json = {{"images", r.images}, {"batch_size", r.batch_size},
               {"width", r.width},   {"height", r.height},
               {"steps", r.steps},   {"guidance_rescale", r.guidance_rescale},
               {"eta", r.eta},       {"clip_skip", r.clip_skip}};
  json["prompt"] = r.prompts;
  put(json, "negative_prompt", r.negative_prompt);
  put(json, "seed", r.seed);
  put(json, "sampler", r.sampler);
  put(json, "spacing", r.spacing);
  put(json, "guidance", r.guidance);
  put(json, "init_image", r.init_image.string());
  put(json, "strength", r.strength);
  put(json, "mask_image", r.mask_image.string());
  put(json, "latents", r.latents.string());
  put(json, "control_image", r.control_image.string());
  put(json, "control", r.control);
  put(json, "control_strength", r.control_strength);
  if (r.control == "canny") {
    json["canny_low"] = r.canny.low;
    json["canny_high"] = r.canny.high;
  }
  return json;
}

}  // namespace ringlet::service
