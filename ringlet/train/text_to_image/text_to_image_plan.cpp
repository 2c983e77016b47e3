#include "ringlet/train/text_to_image/text_to_image_plan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"

namespace ringlet::train {
namespace {

/// A caption with the place that it comes from.
CutCaption placed(const data::Picture& picture, const TextToImageOptions& options) {
  if (!picture.caption_file.empty()) return {picture.caption_file.string(), false, {}};
  if (picture.caption == options.instance_prompt) return {"instance_prompt", true, {}};
  return {picture.path.parent_path().string(), false, {}};  // the words of a folder in kohya's form
}

std::string text_of(const CutCaption& caption, const Spelling& option) {
  return caption.is_field ? option(caption.where) : caption.where;
}

void plan_captions(TextToImagePlan& plan, const TextToImageOptions& options,
                   const pipeline::TextToImageModel& model, const TrainingPictures& pictures) {
  constexpr std::size_t kExamples = 3;
  for (const data::Picture& picture : pictures.instance) {
    const std::string& shown = picture.shown_caption();
    const auto same = [&](const auto& example) { return example.first == shown; };
    if (plan.examples.size() < kExamples && std::ranges::none_of(plan.examples, same))
      plan.examples.emplace_back(shown, model.tokens(shown).used);
    plan.masks += picture.use.masked_by_alpha || !picture.use.mask.empty() ? 1 : 0;
  }
  const auto add_cut = [&](CutCaption caption, const std::string& text) {
    for (pipeline::CutPrompt& cut : model.newly_cut(std::array{text})) {
      caption.text = std::move(cut);
      plan.too_long.push_back(caption);
    }
  };
  for (const auto* part : {&pictures.instance, &pictures.validation})
    for (const data::Picture& picture : *part) {
      if (picture.use.captions.empty()) add_cut(placed(picture, options), picture.caption);
      for (const std::string& caption : picture.use.captions)
        add_cut(placed(picture, options), caption);
    }
  add_cut({"class_prompt", true, {}}, options.class_prompt);
  for (const std::string& prompt : options.samples.prompts)
    if (is_utf8(prompt))  // others fail when they are sampled
      add_cut({"sample_prompt", true, {}}, prompt);
}

void add_class_pictures(Lines& lines, const TextToImagePlan& plan, const std::string& prompt,
                        const Spelling& option) {
  const std::string found = std::to_string(plan.class_found);
  const bool all = plan.class_found == plan.class_pictures;
  lines.emplace_back(
      "class pictures",
      (all ? found + " found" : std::to_string(plan.class_pictures) + " of " + found + " used") +
          ", " + std::to_string(plan.class_to_make) + " to make, \"" + prompt + "\"" +
          (all ? "" : "; " + option("class_count") + " " + found + " uses all"));
  for (const data::FolderNote& note : plan.class_notes)
    lines.emplace_back("note", "class pictures: " + data::text_of(note));
}

/// "12 of 832x1216, 3 of 1024".
std::string text_of(const BucketCounts& buckets) {
  std::vector<std::string> parts;
  for (const auto& [size, count] : buckets)
    parts.push_back(std::to_string(count) + " of " + size.short_text());
  return join(parts);
}

void add_data_lines(Lines& lines, const TextToImagePlan& plan) {
  for (const std::string& set : plan.sets) lines.emplace_back("data set", set);
  for (const auto& file : plan.left_out)
    lines.emplace_back("left out", file.string() + " cannot be read");
  const bool one = plan.buckets.size() == 1 && plan.buckets.front().first == plan.resolution;
  if (!plan.buckets.empty() && !one)
    lines.emplace_back(
        "buckets",
        text_of(plan.buckets) + (plan.buckets.size() > 1
                                     ? "; short batches are filled with their bucket's pictures"
                                     : ""));
  if (plan.variants > plan.pictures)
    lines.emplace_back("captions", std::to_string(plan.variants) + " variants");
  if (plan.masks > 0)
    lines.emplace_back(
        "masks", std::to_string(plan.masks) + " of " + std::to_string(plan.pictures) + " pictures");
}

Json json_of(const BucketCounts& buckets) {
  Json all = Json::array();
  for (const auto& [size, count] : buckets)
    all.push_back({{"width", size.width}, {"height", size.height}, {"pictures", count}});
  return all;
}

Json json_of(const std::vector<data::FolderNote>& notes) {
  Json all = Json::array();
  for (const data::FolderNote& note : notes) {
    Json files = Json::array();
    for (const auto& file : note.files) files.push_back(file.generic_string());
    all.push_back(
        {{"kind", data::name_of(note.kind)}, {"text", data::text_of(note)}, {"files", files}});
  }
  return all;
}

}  // namespace

std::size_t caption_count(const std::vector<data::Picture>& pictures) {
  std::size_t count = 0;
  for (const data::Picture& picture : pictures)
    count += std::max<std::size_t>(picture.use.captions.size(), 1);
  return count;
}

TextToImagePlan make_plan(const TextToImageOptions& options,
                          const pipeline::TextToImageModel& model, const TrainingPictures& pictures,
                          const ClassPictures& class_pictures) {
  TextToImagePlan plan;
  plan.model_kind = model.description().kind;
  plan.folder_rule = pictures.folder_rule;
  plan.pictures = pictures.instance.size();
  plan.captions = pictures.captions;
  plan.validation = pictures.validation.size();
  plan.notes = pictures.notes;
  plan.sets = pictures.sets;
  plan.variants = caption_count(pictures.instance);
  plan.class_found = class_pictures.found;
  plan.class_pictures = class_pictures.pictures.size();
  plan.class_notes = class_pictures.notes;
  if (!options.class_prompt.empty())
    plan.class_to_make = static_cast<std::size_t>(options.class_count) - plan.class_pictures;
  plan_captions(plan, options, model, pictures);
  return plan;
}

Lines lines_of(const TextToImagePlan& plan, const TextToImageOptions& options,
               const Spelling& option) {
  Lines lines = {{"model", plan.model_kind + " on " + options.load.device.str() + " in " +
                               nn::precision_name(options.load.precision) +
                               base_storage_text(options.load.storage)},
                 {"pictures", std::to_string(plan.pictures) + " of " + place_of_pictures(options) +
                                  (plan.sets.empty() ? " (" + plan.folder_rule + "), " : ", ") +
                                  std::to_string(plan.captions) + " with their own captions"}};
  for (const data::FolderNote& note : plan.notes) lines.emplace_back("note", data::text_of(note));
  for (const auto& [caption, tokens] : plan.examples)
    lines.emplace_back("caption", "\"" + caption + "\" (" + std::to_string(tokens) + " tokens)");
  for (const CutCaption& caption : plan.too_long) {
    const pipeline::CutPrompt& cut = caption.text;
    lines.emplace_back("too long", text_of(caption, option) + ": " + std::to_string(cut.tokens) +
                                       " tokens, the model reads " + std::to_string(cut.limit) +
                                       "; ignored: \"" + cut.cut + "\"");
  }
  add_data_lines(lines, plan);
  if (!options.class_prompt.empty()) add_class_pictures(lines, plan, options.class_prompt, option);
  if (options.control)
    lines.emplace_back("control",
                       std::string(data::name_of(options.control.signal.value())) + " through " +
                           pipeline::name_of(options.control.network) + ", " +
                           human_count(plan.control_parameters) + " parameters, " +
                           std::to_string(plan.validation) + " pictures held out" +
                           (plan.validation == 0 ? ", so there will be no samples" : ""));
  return lines;
}

Json to_json(const TextToImagePlan& plan, const Spelling& option) {
  Json captions = Json::array(), too_long = Json::array(), left_out = Json::array();
  for (const auto& file : plan.left_out) left_out.push_back(file.string());
  for (const auto& [caption, tokens] : plan.examples)
    captions.push_back({{"caption", caption}, {"tokens", tokens}});
  for (const CutCaption& caption : plan.too_long)
    too_long.push_back({{"where", text_of(caption, option)},
                        {"tokens", caption.text.tokens},
                        {"limit", caption.text.limit},
                        {"cut", caption.text.cut}});
  return {{"model", plan.model_kind},
          {"pictures", plan.pictures},
          {"captions_from_files", plan.captions},
          {"captions", captions},
          {"captions_too_long", too_long},
          {"notes", json_of(plan.notes)},
          {"data_sets", plan.sets},
          {"caption_variants", plan.variants},
          {"masks", plan.masks},
          {"left_out", left_out},
          {"buckets", json_of(plan.buckets)},
          {"class_pictures", plan.class_pictures},
          {"class_pictures_found", plan.class_found},
          {"class_pictures_to_make", plan.class_to_make},
          {"class_notes", json_of(plan.class_notes)},
          {"control_parameters", plan.control_parameters},
          {"validation_pictures", plan.validation},
          {"resolution", plan.resolution}};
}

}  // namespace ringlet::train
