#include "eval_pictures.h"

namespace ringlet::app {

void complete(service::EvaluationPictures& pictures, const AdapterOptions& adapters,
              const CommonOptions& common) {
  pictures.load.device = common.select_device();
  if (pictures.model.empty()) return;
  pictures.adapters = parse_adapters(adapters);
  pictures.load.precision = common.select_precision(pictures.load.device);
}

void check_making(const CLI::App& app, const service::EvaluationPictures& making) {
  if (making.model.empty())
    refuse_group(app, service::kMaking,
                 "it sets how pictures are generated, but without --model none are",
                 "give --model as well, or leave it out");
}

service::MakingObserver MakingProgress::observer() {
  return {.progress =
              [this](std::size_t done, std::size_t total) {
                if (done == 0)
                  bar_.emplace("generating", total, silent_);
                else
                  bar_->advance();
                if (done == total) bar_.reset();  // before anything is printed
              },
          .step = [](const diffusion::SamplerStep&) { return !interrupted(); }};
}

}  // namespace ringlet::app
