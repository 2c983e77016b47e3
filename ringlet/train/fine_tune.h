// Fine-tuning of a text-to-image model from a folder of pictures: DreamBooth and captions, with
// adapters or of all weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/picture_size.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/adapter_training.h"
#include "ringlet/train/control_validation.h"
#include "ringlet/train/diffusion_loss.h"
#include "ringlet/train/run_folder.h"
#include "ringlet/train/run_log.h"
#include "ringlet/train/sample_sheet.h"
#include "ringlet/train/trainer.h"
#include "ringlet/train/training_set.h"

namespace ringlet::train {

/// Controllable generation: pictures are to follow a signal.
struct ControlTraining {
  data::ControlSettings settings;
  pipeline::ControlKind network = pipeline::ControlKind::encoder;
  /// Held out of the training pictures, evenly spread: none, or two at least. Samples are made of
  /// them alone; a prompt has no signal.
  std::int64_t validation_pictures = 0;
  ControlMetric metric = {};  ///< measured on them
};

/// Nothing of the model may learn beside a ControlNet (NoWeights).
struct FineTuneOptions : AdapterTrainingOptions {
  std::filesystem::path model;
  pipeline::LoadOptions load;
  std::filesystem::path out;
  bool resume = false;
  std::uint64_t seed = 0;

  // What learns besides adapters.
  std::optional<ControlTraining> control = {};
  bool train_text_encoder = false;

  // From what.
  std::filesystem::path instance_images;
  std::string instance_prompt;
  std::filesystem::path class_images;
  std::string class_prompt;
  std::int64_t class_count = 100;
  std::int64_t repeats = 1;
  CropOptions crop{.size = {}};  ///< an empty size = the model's own
  std::filesystem::path cache;

  // How.
  TrainerOptions trainer;
  DiffusionLossOptions loss;
  bool gradient_checkpointing = false;
  at::ScalarType save_precision = at::kFloat;  ///< of what is written

  // What to see.
  SampleOptions samples;
  std::int64_t sample_every = 0;  ///< steps; 0 = only before and after
};

/// A caption or prompt that is too long for the text encoder.
struct CutCaption {
  std::string where;  ///< the caption's file, or the option
  pipeline::CutPrompt text;
};

/// What a run is going to do, for people to read before it starts.
struct FineTunePlan {
  std::string model_kind;
  std::string folder_rule;
  std::size_t pictures = 0;
  std::size_t captions = 0;        ///< pictures with a text file of their own
  std::size_t validation = 0;      ///< pictures held out, which are not among `pictures`
  std::size_t class_found = 0;     ///< class pictures in their folder
  std::size_t class_pictures = 0;  ///< of them, those that are used: class_count at most
  std::size_t class_to_make = 0;
  std::vector<data::FolderNote> notes;        ///< what of the pictures' folder is not used
  std::vector<data::FolderNote> class_notes;  ///< the same of the class pictures'
  std::vector<CutCaption> too_long;           ///< each caption and prompt once
  std::vector<std::pair<std::string, std::int64_t>> examples;  ///< final captions, tokens used
  std::string method;
  std::size_t layers = 0;                ///< adapted layers; 0 for "full"
  std::vector<adapt::BudgetRow> budget;  ///< how a budget was spent, by shape
  std::int64_t parameters = 0;
  std::int64_t control_parameters = 0;  ///< of them, a control network's
  PictureSize resolution;
  double epochs = 0.0;
  std::string optimizer;
  std::int64_t steps = 0;
  std::int64_t first_step = 0;       ///< steps done before, when the run goes on
  std::uint64_t expected_bytes = 0;  ///< expected_peak_bytes
};

/// How a program follows a run. Any of them may be empty; returning false stops the run.
struct FineTuneObserver {
  std::function<bool(const std::string& stage, std::size_t done, std::size_t total)> progress;
  StepObserver step;
};

class FineTune {
 public:
  /// Reads folders, opens the model, builds the adapters and decodes every picture and given signal
  /// once; writes nothing. Throws Error(invalid_argument | not_found | …) for everything that can
  /// be known to be wrong, with all damaged pictures, and Error(cancelled) when
  /// `observer.progress` stops the check of the pictures.
  explicit FineTune(FineTuneOptions options, const FineTuneObserver& observer = {});
  FineTune(const FineTune&) = delete;
  FineTune& operator=(const FineTune&) = delete;

  const FineTunePlan& plan() const { return plan_; }

  /// Does the run: class pictures, latents, training, samples, report. Returns false when the
  /// observer stopped it; a checkpoint to resume from has been written then.
  bool run(const FineTuneObserver& observer);

  /// What the run made: OUT/adapter.safetensors, OUT/model for "full", or OUT/controlnet for
  /// "none".
  std::filesystem::path result() const;

  /// The ControlNet that the run trains, beside an adapter or alone.
  std::optional<std::filesystem::path> controlnet() const;

 private:
  bool full() const { return options_.full(); }
  bool adapts() const { return options_.method() != nullptr; }
  void prepare(const FineTuneObserver& observer);
  bool run_stages(const FineTuneObserver& observer);
  void read_pictures();
  void read_class_pictures();
  void build_adapters();
  void hold_out_pictures();
  void make_plan();
  void plan_captions();
  void check_pictures(const FineTuneObserver& observer);
  void check_resume();
  std::string contents_of(const std::vector<data::Picture>& pictures) const;
  std::vector<Trainable> trainables() const;
  Json settings() const;
  void make_class_pictures(const FineTuneObserver& observer);
  TrainingSet encode(const std::vector<data::Picture>& pictures, const std::string& stage,
                     const FineTuneObserver& observer) const;
  LossFunction loss_function(const FineTuneObserver& observer) const;
  std::unique_ptr<ControlValidation> control_validation(const FineTuneObserver& observer) const;
  io::Image samples(Trainer& trainer, std::int64_t step);
  bool train(Trainer& trainer, RunLog& log, const FineTuneObserver& observer);
  void save_result(Trainer& trainer) const;
  void save_adapters(Trainer& trainer) const;

  FineTuneOptions options_;
  std::unique_ptr<pipeline::TextToImageModel> model_;
  data::PictureFolder instance_;
  std::vector<data::Picture> class_pictures_;
  std::optional<AdapterTraining> adapters_;
  std::unique_ptr<pipeline::ControlNetwork> control_;
  std::vector<data::Picture> validation_pictures_;
  std::unique_ptr<ControlValidation> validation_;
  std::optional<ControlScores> scores_;
  std::map<std::filesystem::path, std::string> hashes_;  ///< of the pictures that were checked
  FineTunePlan plan_;
};

}  // namespace ringlet::train
