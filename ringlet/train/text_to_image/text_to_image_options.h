// Options of a run on a text-to-image model and a folder of pictures: DreamBooth and
// captions, with adapters or of all weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/run_options.h"
#include "ringlet/train/text_to_image/control_validation.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"
#include "ringlet/train/text_to_image/sample_sheet.h"
#include "ringlet/train/text_to_image/training_data_options.h"
#include "ringlet/train/text_to_image/training_set.h"

namespace ringlet::train {

/// Controllable generation: pictures are to follow a signal.
struct ControlTraining {
  std::optional<data::ControlSignal> signal;  ///< none = only the prompt counts
  data::CannyThresholds canny = {};
  std::filesystem::path images = {};  ///< given signals: data::ControlSettings::folder
  pipeline::ControlKind network = pipeline::ControlKind::encoder;
  /// Held out of the training pictures, evenly spread: none, or two at least. Samples are made of
  /// them alone; a prompt has no signal.
  std::int64_t validation_pictures = 0;
  ControlMetric metric = {};  ///< measured on them

  explicit operator bool() const { return signal.has_value(); }

  /// How the control pictures come about; there must be a signal.
  data::ControlSettings settings() const { return {signal.value(), canny, images}; }
};

struct TextToImageOptions {
  std::filesystem::path model;
  pipeline::LoadOptions load;  ///< what learns of it follows from the run's method

  // What learns besides adapters.
  ControlTraining control = {};
  bool train_text_encoder = false;

  // From what.
  std::filesystem::path instance_images;
  std::string instance_prompt;
  std::filesystem::path class_images;  ///< empty = "class_images" in the run's folder
  std::string class_prompt;
  std::int64_t class_count = 100;
  std::int64_t repeats = 1;
  CropOptions crop{.size = {}};  ///< no size = the model's own; the seed is the run's
  std::filesystem::path cache;
  /// Pictures that are not trained on: their loss is a score. Empty = none.
  std::filesystem::path validation_images = {};
  TrainingDataOptions data;  ///< buckets, captions, masks, and several data sets

  // How.
  DiffusionLossOptions loss;  ///< seed, batch size, train_text and control are the run's
  bool gradient_checkpointing = false;

  // What to see.
  SampleOptions samples;  ///< of the crops' size; no prompts = the captions

  /// Whether class pictures are seen beside the others: prior preservation.
  bool has_class_pictures() const { return !class_prompt.empty() || data.any_class_set(); }
};

/// The data set that the options of a run describe: the usual values of those of a file.
data::Dataset usual_dataset(const TextToImageOptions& options);

/// The data sets of a run: those that are given, or the one of its own folder.
std::vector<data::Dataset> datasets_of(const TextToImageOptions& options);

/// What learns besides adapters, the pictures, the control signal, the loss and the samples. The
/// model, and how it is opened, are the caller's.
void describe(OptionList& list, TextToImageOptions& options);

/// What a resumed run must repeat of them. Without a control signal there is nothing about it.
Json settings_of(const TextToImageOptions& options);

/// Everything about the options that is wrong whatever the model. Throws Error(invalid_argument).
void check_options(const TextToImageOptions& options, const RunOptions& run);

/// The folder of the pictures, for messages: "photos", or "several data sets".
std::string place_of_pictures(const TextToImageOptions& options);

/// The folder with class pictures.
std::filesystem::path class_folder(const TextToImageOptions& options, const RunOptions& run);

}  // namespace ringlet::train
