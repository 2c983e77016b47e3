#include "ringlet/train/text_to_image/control_learner.h"

#include <utility>

namespace ringlet::train {

ControlLearner::ControlLearner(const ControlTraining& options,
                               const pipeline::TextToImageModel& model, std::uint64_t seed)
    : options_(options), model_(model), network_(model.create_control(options.network, seed)) {}

std::int64_t ControlLearner::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : network_->tensors()) count += tensor.numel();
  return count;
}

std::vector<Trainable> ControlLearner::trainables() const {
  std::vector<Trainable> found;
  for (const auto& [name, tensor] : network_->tensors())
    found.push_back({"control." + name, tensor});
  return found;
}

Json ControlLearner::settings(const TrainingPictures& pictures, const FileHashes& hashes,
                              const SampleOptions& samples) const {
  const data::ControlSettings control = options_.settings();
  const std::vector<data::Picture> all = pictures.all();
  Json settings = {{"control images", control_fingerprint(control, all)},
                   {"validation pictures", fingerprint(pictures.validation)},
                   {"validation pictures' contents", contents_of(pictures.validation, hashes)}};
  if (const std::string maps = map_contents(control, all); !maps.empty())
    settings["control images' contents"] = maps;
  // The metric in control.csv is that of pictures which are made so.
  if (!pictures.validation.empty())
    settings["samples"] = {
        {"seed", samples.seed}, {"steps", samples.steps}, {"guidance", samples.guidance.value()}};
  return settings;
}

void ControlLearner::validate_on(TrainingSet pictures, std::vector<io::Image> sources,
                                 const SampleOptions& samples) {
  validation_ = std::make_unique<ControlValidation>(model_, *network_, std::move(pictures),
                                                    std::move(sources), options_.metric, samples);
}

Observation ControlLearner::observe(std::int64_t step) const {
  Observation seen;
  io::Image sheet;
  seen.scores = scores_of(validation_->measure(step, sheet));
  seen.pictures = std::move(sheet);
  return seen;
}

void ControlLearner::complete(adapt::AdapterFileInfo& info) const {
  if (is_controlnet()) return;
  info.control = Json{{"network", pipeline::name_of(network_->kind())},
                      {"signal", data::name_of(options_.signal.value())},
                      {"model", model_.description().kind}}
                     .dump();
  info.control_tensors = network_->tensors();
}

void ControlLearner::save(const std::filesystem::path& folder, at::ScalarType precision) const {
  network_->save(folder, precision);
}

}  // namespace ringlet::train
