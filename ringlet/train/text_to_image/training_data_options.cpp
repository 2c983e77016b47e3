#include "ringlet/train/text_to_image/training_data_options.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "ringlet/core/error.h"

namespace ringlet::train {
namespace {

constexpr std::array<std::pair<const char*, bool>, 2> kBadPictureNames = {
    {{"fail", false}, {"skip", true}}};

Json settings_in(TrainingDataOptions options) {
  OptionList list;
  describe(list, options);
  return list.settings();
}

}  // namespace

bool TrainingDataOptions::any_class_set() const {
  return std::ranges::any_of(sets, &data::Dataset::is_class);
}

void describe(OptionList& list, TrainingDataOptions& o) {
  data::describe(list, o.buckets);
  data::describe(list, o.captions);
  list.add("metadata_file", o.metadata,
           "File that lists the pictures of `instance_images` with their captions: .jsonl (Hugging "
           "Face) or .json (kohya); a metadata.jsonl in the folder is read anyway");
  list.add("masks", choice("masks", o.masks, data::kMaskSourceNames),
           "Masked loss: masks are files (a-masklabel.png, a_mask.png, masks/a.png) or the "
           "pictures' alpha; white counts")
      .repeated();
  list.add("mask_images", o.mask_images,
           "Folder with one mask per picture, of the same name, for `masks=files`");
  list.add("mask_outside", o.mask.outside, "Masked loss: weight of what a mask leaves out")
      .within(Range::between(0, 1))
      .repeated();
  list.add("mask_normalised", o.mask.normalised,
           "Masked loss: divide by the mask's mean, so that a small mask counts as much as a large "
           "one")
      .repeated();
  list.add(
      "on_bad_picture", choice("on_bad_picture", o.skip_bad_pictures, kBadPictureNames),
      "What training pictures that cannot be read do: end the run before it starts, or be left "
      "out with a warning");
}

void complete_settings(Json& settings, const TrainingDataOptions& options) {
  const Json usual_settings = settings_in({});
  Json unusual = Json::object();
  for (const auto& [key, usual] : usual_settings.items()) {
    if (key == "aspect buckets") continue;
    if (settings.at(key) != usual) unusual[key] = settings.at(key);
    settings.erase(key);
  }
  for (const data::Dataset& set : options.sets)
    unusual["data sets"].push_back(data::settings_of(set));
  settings["training data"] = std::move(unusual);
}

void check(const TrainingDataOptions& options) {
  TrainingDataOptions described = options;
  OptionList list;
  describe(list, described);
  list.check();
  data::check(options.captions);
  for (const data::Dataset& set : options.sets) data::check(set);
  if (!options.mask_images.empty() && options.masks != data::MaskSource::files)
    throw Error(ErrorCode::invalid_argument, Field("mask_images"),
                "it has no effect without `masks=files`", "give both, or leave it out");
  const bool masked = options.masks != data::MaskSource::off ||
                      std::ranges::any_of(options.sets, [](const data::Dataset& set) {
                        return set.masks != data::MaskSource::off;
                      });
  if (masked) return;
  const char* const hint = "give `masks=files` or `masks=alpha` as well, or leave it out";
  if (options.mask.outside > 0.0)
    throw Error(ErrorCode::invalid_argument, Field("mask_outside"), "there is no mask", hint);
  if (options.mask.normalised)
    throw Error(ErrorCode::invalid_argument, Field("mask_normalised"), "there is no mask", hint);
}

}  // namespace ringlet::train
