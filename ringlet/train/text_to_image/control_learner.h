// What a control signal adds to a text-to-image run: the network that learns, what is seen of it on
// held-out pictures, and its part in settings and files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/json.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/train/task.h"
#include "ringlet/train/text_to_image/control_validation.h"
#include "ringlet/train/text_to_image/text_to_image_options.h"
#include "ringlet/train/text_to_image/training_pictures.h"

namespace ringlet::train {

class ControlLearner {
 public:
  /// A new network for the model. Throws as TextToImageModel::create_control.
  ControlLearner(const ControlTraining& options, const pipeline::TextToImageModel& model,
                 std::uint64_t seed);

  const pipeline::ControlNetwork& network() const { return *network_; }
  bool is_controlnet() const { return network_->kind() == pipeline::ControlKind::controlnet; }
  std::int64_t parameter_count() const;
  std::vector<Trainable> trainables() const;

  /// What a resumed run must find unchanged of signals and samples, beside the options.
  Json settings(const TrainingPictures& pictures, const FileHashes& hashes,
                const SampleOptions& samples) const;

  /// Takes the held-out pictures, encoded, with what they were cut from.
  void validate_on(TrainingSet pictures, std::vector<io::Image> sources,
                   const SampleOptions& samples);
  Observation observe(std::int64_t step) const;  ///< of the held-out pictures

  /// A ControlNet is saved in a folder, other networks in the adapter's file.
  void complete(adapt::AdapterFileInfo& info) const;
  void save(const std::filesystem::path& folder, at::ScalarType precision) const;

 private:
  const ControlTraining& options_;
  const pipeline::TextToImageModel& model_;
  const std::unique_ptr<pipeline::ControlNetwork> network_;
  std::unique_ptr<ControlValidation> validation_;
};

}  // namespace ringlet::train
