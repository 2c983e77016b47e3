// The part of FineTune that looks at its inputs one by one: captions, pictures, the checkpoint.
#include <algorithm>
#include <array>

#include <ATen/Parallel.h>

#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/data/picture_check.h"
#include "ringlet/train/fine_tune.h"
#include "ringlet/train/fine_tune_internal.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

/// Settings that run() adds.
constexpr std::array kLaterSettings = {"model", "class pictures", "class pictures' contents"};

constexpr std::size_t kExamples = 3;

}  // namespace

void FineTune::plan_captions() {
  for (const data::Picture& picture : instance_.pictures) {
    const auto same = [&](const auto& example) { return example.first == picture.caption; };
    if (plan_.examples.size() < kExamples && std::ranges::none_of(plan_.examples, same))
      plan_.examples.emplace_back(picture.caption, model_->tokens(picture.caption).used);
  }
  const auto add_cut = [&](const std::string& where, const std::string& text) {
    for (pipeline::CutPrompt& cut : model_->newly_cut(std::array{text}))
      plan_.too_long.push_back({where, std::move(cut)});
  };
  const auto source_of = [&](const data::Picture& picture) {
    if (!picture.caption_file.empty()) return picture.caption_file.string();
    // Else the words of a folder in kohya's form.
    return picture.caption == options_.instance_prompt ? "`instance_prompt`"
                                                       : picture.path.parent_path().string();
  };
  for (const auto* pictures : {&instance_.pictures, &validation_pictures_})
    for (const data::Picture& picture : *pictures) add_cut(source_of(picture), picture.caption);
  add_cut("`class_prompt`", options_.class_prompt);
  for (const std::string& prompt : options_.samples.prompts)
    if (is_utf8(prompt)) add_cut("`sample_prompt`", prompt);  // others fail when they are sampled
}

void FineTune::check_pictures(const FineTuneObserver& observer) {
  std::vector<data::Picture> all = instance_.pictures;
  all.insert(all.end(), validation_pictures_.begin(), validation_pictures_.end());
  all.insert(all.end(), class_pictures_.begin(), class_pictures_.end());
  const std::vector<fs::path> files = data::paths_of(all);
  data::PictureCheckOptions how{.threads = at::get_num_threads()};
  if (options_.control)
    how.also = [&](std::size_t i, const io::Image& image) {
      data::check_control_file(options_.control->settings, files[i], image);
    };
  if (observer.progress)
    how.progress = [&](std::size_t done, std::size_t total) {
      return observer.progress("checking pictures", done, total);
    };
  std::string folders = options_.instance_images.string();
  if (!class_pictures_.empty()) folders += ", " + options_.class_images.string();
  const std::vector<std::string> hashes = data::check_pictures(files, folders, how);
  for (std::size_t i = 0; i < files.size(); ++i) hashes_[files[i]] = hashes[i];
}

/// SHA-256 of the pictures' files; class pictures that were made later are read for it.
std::string FineTune::contents_of(const std::vector<data::Picture>& pictures) const {
  std::string text;
  for (const data::Picture& picture : pictures) {
    const auto known = hashes_.find(picture.path);
    text += (known == hashes_.end() ? sha256_file(picture.path) : known->second) + "\n";
  }
  return sha256_text(text);
}

/// Before anything is made. run() compares the rest, which takes time to find out.
void FineTune::check_resume() {
  if (!options_.resume) return;
  const CheckpointFolder folder(options_.out / kCheckpoints, 1);
  const auto latest = folder.latest();
  if (!latest) return;
  const TrainState state = CheckpointFolder::load(*latest);
  plan_.first_step = state.step;
  const Json now = settings();
  Json before = state.settings;
  for (const char* later : kLaterSettings) before.erase(later);
  check_settings(before, now, latest->string());
}

}  // namespace ringlet::train
