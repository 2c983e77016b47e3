#include "ringlet/train/text_to_image/training_pictures.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <system_error>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/random.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/data/caption_operations.h"
#include "ringlet/data/dataset.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

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

/// Moves some of the pictures, evenly spread, from those to learn from.
void hold_out(TrainingPictures& pictures, std::size_t wanted) {
  const std::size_t count = pictures.instance.size();
  if (wanted >= count)
    throw Error(ErrorCode::invalid_argument, Field("validation_pictures"),
                "of " + std::to_string(count) + " pictures, " + std::to_string(wanted) +
                    " cannot be held out",
                "leave some to train on");
  for (std::size_t i = wanted; i-- > 0;) {
    const auto place = pictures.instance.begin() + static_cast<std::ptrdiff_t>(i * count / wanted);
    pictures.validation.insert(pictures.validation.begin(), *place);
    pictures.instance.erase(place);
  }
}

/// The pictures of one data set, of several where `named`.
void add_set(TrainingPictures& pictures, data::PictureFolder found, const data::Dataset& set,
             bool named) {
  const fs::path& folder = set.pictures();
  if (named)
    pictures.sets.push_back(std::to_string(found.pictures.size()) +
                            (set.is_class() ? " class pictures of " : " pictures of ") +
                            folder.string() + " (" + found.rule + "), " +
                            std::to_string(found.captions) + " with their own captions");
  for (data::FolderNote& note : found.notes) {
    if (named)
      for (fs::path& file : note.files) file = folder / file;
    pictures.notes.push_back(std::move(note));
  }
  auto& all = set.is_class() ? pictures.of_class : pictures.instance;
  std::ranges::move(found.pictures, std::back_inserter(all));
  if (!set.is_class()) pictures.captions += found.captions;
  pictures.folder_rule = named ? "of several data sets" : found.rule;
}

/// What each picture's caption will be, in each of its variants.
void draw_captions(std::vector<data::Picture>& pictures, const std::vector<data::Dataset>& sets,
                   std::uint64_t seed, const std::string& kind) {
  const Random random(Random(seed).stream("captions of " + kind).next_u64());
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    data::Picture& picture = pictures[i];
    std::vector<std::string> variants =
        data::caption_variants(sets.at(picture.use.dataset).captions, picture.caption, random, i);
    if (variants.size() > 1 || variants.front() != picture.caption)
      picture.use.captions = std::move(variants);
  }
}

}  // namespace

std::vector<data::Picture> TrainingPictures::all() const {
  std::vector<data::Picture> pictures = instance;
  pictures.insert(pictures.end(), validation.begin(), validation.end());
  return pictures;
}

TrainingPictures read_training_pictures(const TextToImageOptions& options, std::uint64_t seed) {
  const std::vector<data::Dataset> sets = datasets_of(options);
  TrainingPictures pictures;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    data::PictureFolder found = data::read_dataset(sets[i]);
    for (data::Picture& picture : found.pictures) picture.use.dataset = i;
    add_set(pictures, std::move(found), sets[i], sets.size() > 1);
  }
  draw_captions(pictures.instance, sets, seed, "instance");
  draw_captions(pictures.of_class, sets, seed, "class");
  if (pictures.instance.empty())
    throw Error(ErrorCode::not_found, place_of_pictures(options), "there are no pictures");
  if (options.control) {
    remove_signals(
        pictures.notes, options.instance_images,
        data::control_files(options.control.settings(), data::paths_of(pictures.instance)));
    hold_out(pictures, static_cast<std::size_t>(options.control.validation_pictures));
  }
  if (!options.validation_images.empty()) {
    data::Dataset held_out = usual_dataset(options);
    held_out.folder = options.validation_images;
    held_out.metadata.clear();
    pictures.validation_images = data::read_dataset(held_out).pictures;
  }
  return pictures;
}

std::string fingerprint(const std::vector<data::Picture>& pictures) {
  std::string text;
  for (const data::Picture& picture : pictures)
    text += picture.path.filename().string() + "\n" + std::to_string(fs::file_size(picture.path)) +
            "\n" + picture.caption + "\n" + std::to_string(picture.repeats) + "\n";
  return sha256_text(text);
}

std::string contents_of(const std::vector<data::Picture>& pictures, const FileHashes& known) {
  std::string text;
  for (const data::Picture& picture : pictures) {
    const auto hash = known.find(picture.path);
    text += (hash == known.end() ? sha256_file(picture.path) : hash->second) + "\n";
  }
  return sha256_text(text);
}

std::string mask_contents(const std::vector<data::Picture>& pictures) {
  std::string text;
  for (const data::Picture& picture : pictures)
    if (!picture.use.mask.empty()) text += sha256_file(picture.use.mask) + "\n";
  return text.empty() ? "" : sha256_text(text);
}

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

std::string map_contents(const data::ControlSettings& settings,
                         const std::vector<data::Picture>& pictures) {
  if (settings.signal == data::ControlSignal::landmark) return "";
  std::string text;
  for (const fs::path& file : data::control_files(settings, data::paths_of(pictures)))
    text += sha256_file(file) + "\n";
  return text.empty() ? "" : sha256_text(text);
}

void describe_pictures(const TrainingPictures& pictures, io::Metadata& extra) {
  Json folders = Json::object(), tags = Json::object();
  for (const data::Picture& picture : pictures.instance) {
    const std::string folder = picture.path.parent_path().filename().string();
    const std::string caption = is_utf8(picture.caption) ? picture.caption : "";
    if (!is_utf8(folder)) continue;
    Json& one = folders[folder];
    one["n_repeats"] = picture.repeats;
    one["img_count"] = one.value("img_count", 0) + 1;
    Json& count = tags[folder][caption];
    count = count.is_null() ? 1 : count.get<int>() + 1;
  }
  extra["ss_dataset_dirs"] = folders.dump();
  extra["ss_tag_frequency"] = tags.dump();
}

}  // namespace ringlet::train
