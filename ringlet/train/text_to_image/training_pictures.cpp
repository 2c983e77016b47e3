#include "ringlet/train/text_to_image/training_pictures.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/sha256.h"

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

void complete_captions(std::vector<data::Picture>& pictures, const TextToImageOptions& options) {
  for (data::Picture& picture : pictures) {
    if (picture.caption.empty()) picture.caption = options.instance_prompt;
    if (picture.caption.empty())
      throw Error(ErrorCode::invalid_argument, picture.path.string(), "the picture has no caption",
                  "give `instance_prompt=\"a photo of sks dog\"`, or write the caption into " +
                      picture.path.stem().string() + ".txt");
  }
}

}  // namespace

std::vector<data::Picture> TrainingPictures::all() const {
  std::vector<data::Picture> pictures = instance;
  pictures.insert(pictures.end(), validation.begin(), validation.end());
  return pictures;
}

std::int64_t TrainingPictures::epoch_size() const {
  std::int64_t shown = 0;
  for (const data::Picture& picture : instance) shown += picture.repeats;
  return shown;
}

TrainingPictures read_training_pictures(const TextToImageOptions& options) {
  data::PictureFolder folder = data::read_picture_folder(options.instance_images);
  for (data::Picture& picture : folder.pictures) picture.repeats *= options.repeats;
  complete_captions(folder.pictures, options);
  TrainingPictures pictures{.instance = std::move(folder.pictures),
                            .validation = {},
                            .validation_images = {},
                            .captions = folder.captions,
                            .folder_rule = std::move(folder.rule),
                            .notes = std::move(folder.notes)};
  if (options.control) {
    remove_signals(
        pictures.notes, options.instance_images,
        data::control_files(options.control.settings(), data::paths_of(pictures.instance)));
    hold_out(pictures, static_cast<std::size_t>(options.control.validation_pictures));
  }
  if (!options.validation_images.empty()) {
    pictures.validation_images = data::read_picture_folder(options.validation_images).pictures;
    complete_captions(pictures.validation_images, options);
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

}  // namespace ringlet::train
