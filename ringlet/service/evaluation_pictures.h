// Pictures that are made to be measured: many, in a folder that says what they were made with, so
// that those that are there already are not made again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/diffusion/samplers.h"
#include "ringlet/eval/control_evaluation.h"
#include "ringlet/eval/generation_record.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/service/adapters.h"

namespace ringlet::service {

/// What all pictures of a folder have in common.
struct EvaluationPictures {
  std::filesystem::path model = {};
  pipeline::LoadOptions load = {};
  std::vector<pipeline::AdapterChoice> adapters = {};
  std::filesystem::path folder = {};  ///< of the pictures; it may hold others, of more seeds
  std::int64_t samples = 1;           ///< of every prompt or reference
  std::uint64_t seed = 1;             ///< of the first sample; the next has seed + 1
  std::int64_t steps = 30;
  std::optional<double> guidance = {};  ///< none = the model's own
  std::int64_t clip_skip = 1;
  diffusion::SamplerChoice sampler = {};  ///< none = the model's own
};

/// All but the adapters, the folder, the device and the precision. `of` says what has samples: "per
/// prompt".
void describe(OptionList& list, EvaluationPictures& pictures, const std::string& of);

/// The title of the options that say how pictures are made.
inline constexpr const char* kMaking = "Making the pictures that are missing";

/// The entries of a result that say what was made: the record, and the paths as given.
std::vector<std::pair<std::string, std::string>> settings_of(const EvaluationPictures& pictures,
                                                             const eval::GenerationRecord& record);

/// How a program follows it. Either may be empty.
struct MakingObserver {
  /// How many prompts or references have all their samples; first with none, before the first.
  std::function<void(std::size_t done, std::size_t total)> progress;
  diffusion::StepCallback step;  ///< false stops it with Error(cancelled)
};

/// "adapter.safetensors (0123456789abcdef)": what a file or folder is called, and a hash of it.
std::string file_identity(const std::filesystem::path& path);

/// A model with its adapters, and the request and record that all its pictures share.
class EvaluationModel {
 public:
  /// Throws as pipeline::open_text_to_image_model and load_adapters.
  explicit EvaluationModel(EvaluationPictures pictures);
  EvaluationModel(const EvaluationModel&) = delete;
  EvaluationModel& operator=(const EvaluationModel&) = delete;

  const EvaluationPictures& pictures() const { return pictures_; }
  const pipeline::TextToImageModel& model() const { return *model_; }
  const LoadedAdapters& adapters() const { return adapters_; }
  const std::string& hash() const { return hash_; }  ///< pipeline::model_hash

  /// Steps, guidance, sampler and clip skip; not checked yet.
  pipeline::GenerateRequest request() const;

  /// The settings that pictures of a checked request depend on, whatever they show: the model and
  /// the adapters by name and hash, steps, guidance, sampler, size and precision.
  eval::GenerationRecord record(const pipeline::GenerateRequest& checked) const;

  /// The picture NAME-sSEED.png of the folder.
  std::filesystem::path file_of(const std::string& name, std::uint64_t seed) const;

  /// Seeds of the samples whose picture is not there yet.
  std::vector<std::uint64_t> missing_seeds(const std::string& name) const;

 private:
  EvaluationPictures pictures_;
  std::unique_ptr<pipeline::TextToImageModel> model_;
  std::string hash_;
  LoadedAdapters adapters_;
};

/// A picture per prompt and seed: p00-s1.png, …
class SubjectGeneration {
 public:
  /// Throws as EvaluationModel and pipeline::checked.
  SubjectGeneration(EvaluationPictures pictures, std::vector<std::string> prompts);

  /// What the pictures depend on, for the result.
  const eval::GenerationRecord& record() const { return record_; }

  /// Makes those that are not there yet, with generation parameters as PNG text, and returns all
  /// that are asked for. Throws as eval::claim_folder.
  std::vector<std::filesystem::path> run(const MakingObserver& observer) const;

 private:
  void make(std::size_t prompt, const MakingObserver& observer) const;

  EvaluationModel model_;
  std::vector<std::string> prompts_;
  pipeline::GenerateRequest request_;
  eval::GenerationRecord record_;
};

/// What control pictures follow.
struct ControlPictures {
  data::ControlSettings signal;
  std::filesystem::path reference;   ///< the pictures whose signals they follow, with captions
  std::filesystem::path controlnet;  ///< "" = the encoder of an adapter
  std::string prompt;                ///< of references without a caption
  std::int64_t size = 0;             ///< pixels of a side; 0 = the model's own
  double strength = 1.0;             ///< of the signal
};

/// A picture per reference and seed: NAME-s1.png, …
class ControlGeneration {
 public:
  /// Throws as EvaluationModel, data::read_pictures, control_network and pipeline::checked,
  /// and Error(invalid_argument) where nothing follows signals or a reference has no prompt.
  ControlGeneration(EvaluationPictures pictures, ControlPictures control);

  const eval::GenerationRecord& record() const { return record_; }

  /// The side of the pictures, which are squares.
  std::int64_t size() const { return request_.size.width; }

  /// The pictures that are asked for with their references.
  std::vector<eval::ControlPair> pairs() const;

  /// Makes those that are not there yet. Throws as eval::claim_folder.
  void run(const MakingObserver& observer) const;

 private:
  void check_references() const;
  std::string prompt_of(const data::Picture& picture) const;
  pipeline::GenerateRequest checked_request() const;
  void add_signals();
  void make(const data::Picture& picture, const MakingObserver& observer) const;

  ControlPictures control_;
  std::vector<data::Picture> references_;
  EvaluationModel model_;
  std::unique_ptr<pipeline::ControlNetwork> network_;
  pipeline::GenerateRequest request_;
  eval::GenerationRecord record_;
};

}  // namespace ringlet::service
