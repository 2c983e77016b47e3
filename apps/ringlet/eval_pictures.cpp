#include "eval_pictures.h"

#include "ringlet/core/text.h"

namespace ringlet::app {

void MakingOptions::add_model(OptionList& list, const char* model_help) {
  list.add("model", model, model_help);
  files.add_files(list);
  files.add_prediction(list);
  adapters.add_to(list);
}

void MakingOptions::add_sampling(OptionList& list, const char* samples_help) {
  list.add("samples", samples, samples_help).within(Range::at_least(1));
  list.add("steps", steps, "Sampling steps");
  sampler.add_to(list);
  list.add("guidance", guidance, "Guidance scale");
  add_clip_skip(list, clip_skip);
}

void MakingOptions::add_seed(OptionList& list) {
  list.add("seed", seed, "Seed of the first sample; the next has seed + 1");
}

service::EvaluationPictures MakingOptions::pictures(const CommonOptions& common,
                                                    const std::string& folder) const {
  service::EvaluationPictures pictures;
  pictures.model = model;
  pictures.adapters = parse_adapters(adapters);
  pictures.load.files = files.files();
  pictures.load.device = common.select_device();
  pictures.load.precision = common.select_precision(pictures.load.device);
  pictures.folder = folder;
  pictures.samples = samples;
  pictures.seed = seed;
  pictures.steps = steps;
  pictures.guidance = guidance;
  pictures.clip_skip = clip_skip;
  pictures.sampler = sampler.chosen();
  return pictures;
}

std::vector<std::pair<std::string, std::string>> MakingOptions::settings(
    const eval::GenerationRecord& record) const {
  auto settings = record.summary();
  settings.insert(settings.end(), {{"model path", model},
                                   {"adapter paths", join(adapters.files)},
                                   {"samples", std::to_string(samples)},
                                   {"first seed", std::to_string(seed)}});
  return settings;
}

void check_making(const CLI::App& app, const std::string& model) {
  if (model.empty())
    refuse_group(app, kMaking, "it says how pictures are made, and without --model none are",
                 "give --model as well, or leave it out");
}

service::MakingObserver MakingProgress::observer() {
  return {.progress =
              [this](std::size_t done, std::size_t total) {
                if (done == 0)
                  bar_.emplace("generating", total, silent_);
                else
                  bar_->advance();
              },
          .step = [](const diffusion::SamplerStep&) { return !interrupted(); }};
}

}  // namespace ringlet::app
