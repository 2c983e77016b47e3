#include "eval_pictures.h"

#include "ringlet/core/text.h"

namespace ringlet::app {

void MakingOptions::add_to(OptionList& list, const std::string& of) {
  service::describe(list, made, of);
  adapters.add_to(list);
}

service::EvaluationPictures MakingOptions::pictures(const CommonOptions& common,
                                                    const std::string& folder) const {
  service::EvaluationPictures pictures = made;
  pictures.adapters = parse_adapters(adapters);
  pictures.load.device = common.select_device();
  pictures.load.precision = common.select_precision(pictures.load.device);
  pictures.folder = folder;
  return pictures;
}

std::vector<std::pair<std::string, std::string>> MakingOptions::settings(
    const eval::GenerationRecord& record) const {
  auto settings = record.summary();
  settings.insert(settings.end(), {{"model path", made.model.string()},
                                   {"adapter paths", join(adapters.files)},
                                   {"samples", std::to_string(made.samples)},
                                   {"first seed", std::to_string(made.seed)}});
  return settings;
}

void check_making(const CLI::App& app, const MakingOptions& making) {
  if (!making.wanted())
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
