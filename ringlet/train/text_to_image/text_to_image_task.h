// Fine-tuning of a text-to-image model from a folder of pictures: DreamBooth and captions, with
// adapters or of all weights, and controllable generation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/picture_size.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/memory_estimate.h"
#include "ringlet/train/task.h"
#include "ringlet/train/text_to_image/class_pictures.h"
#include "ringlet/train/text_to_image/control_learner.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"
#include "ringlet/train/text_to_image/picture_buckets.h"
#include "ringlet/train/text_to_image/sample_sheet.h"
#include "ringlet/train/text_to_image/text_to_image_options.h"
#include "ringlet/train/text_to_image/text_to_image_plan.h"
#include "ringlet/train/text_to_image/training_pictures.h"
#include "ringlet/train/text_to_image/training_set.h"

namespace ringlet::train {

class TextToImageTask final : public Task {
 public:
  /// Reads the folders and opens the model. Throws as check_options, read_training_pictures and
  /// opening the model do, and Error(invalid_argument | unsupported) for what the model cannot do.
  TextToImageTask(const TextToImageOptions& options, const RunOptions& run);

  const TextToImagePlan& plan() const { return plan_; }

  adapt::Components components() const override;
  adapt::TargetOptions targets(const adapt::TargetOptions& asked) const override;
  std::vector<Trainable> trainables() const override;
  std::int64_t epoch_size() const override;
  at::ScalarType precision() const override { return options_.load.precision; }
  std::string example_size() const override;
  void fit(const Learners& learners) override;
  std::optional<MemoryNeed> memory(const Learners& learners,
                                   const MemorySavings& savings) const override;
  bool divisible() const override { return true; }
  std::int64_t rows_per_example() const override { return options_.has_class_pictures() ? 2 : 1; }
  std::vector<nn::WeightStorage> storages() const override;
  std::int64_t offloadable() const override;
  std::vector<std::int64_t> tiles() const override;
  Lines plan_lines(const Spelling& option) const override {
    return lines_of(plan_, options_, option);
  }
  Json plan_json(const Spelling& option) const override { return to_json(plan_, option); }
  void check(const StageProgress& progress) override;
  Json settings() const override;
  Json prepare(const Learners& learners, const StageProgress& progress) override;
  at::Tensor loss(std::int64_t micro_batch, const BatchPart& part) const override;
  std::vector<std::string> example_names(std::int64_t micro_batch) const override;
  ObservationRules observation_rules() const override;
  Observation observe(std::int64_t step) const override;
  void save_model(const std::filesystem::path& folder, at::ScalarType precision) const override;
  void complete(adapt::AdapterFileInfo& info) const override;
  std::string companion() const override;
  void save_companion(const std::filesystem::path& folder, at::ScalarType precision) const override;
  void describe(Report& report, const std::vector<ScoreRow>& scores) const override;
  std::string picture_caption() const override;

 private:
  std::vector<data::Picture> complete_class_pictures(const StageProgress& progress) const;
  void make_class_pictures(const StageProgress& progress) const;
  TrainingSet encode(const std::vector<data::Picture>& pictures, const CropOptions& crop,
                     const std::string& stage, const StageProgress& progress) const;
  bool has_samples() const;
  void leave_out(const std::vector<std::filesystem::path>& files);
  BucketCounts buckets() const { return bucket_counts(pictures_.instance, crop_.size); }
  PictureSize largest_size() const;
  void prepare_validation(const StageProgress& progress);
  DiffusionLossOptions loss_options(const Learners& learners) const;
  MemoryRequest memory_request(const Learners& learners, const MemorySavings& savings) const;

  const TextToImageOptions options_;
  const RunOptions& run_;
  TrainingPictures pictures_;           ///< of which bad ones may be left out
  const ClassPictures class_pictures_;  ///< that were there when the task was opened
  const std::unique_ptr<pipeline::TextToImageModel> model_;
  const CropOptions crop_;
  const std::unique_ptr<ControlLearner> control_;  ///< null without a signal
  TextToImagePlan plan_;
  const SampleOptions samples_;
  FileHashes hashes_;  ///< of the pictures that were checked
  std::unique_ptr<DiffusionLoss> loss_;
  TrainingSet validation_;  ///< of TextToImageOptions::validation_images
};

/// For Run: the task with these options.
OpenTask text_to_image(const TextToImageOptions& options);

}  // namespace ringlet::train
