#include "model_options.h"

#include "ringlet/service/generator.h"
#include "ringlet/service/picture_request.h"

namespace ringlet::app {

void ModelOptions::add_files(CLI::App& app) {
  app.add_option("--variant", variant, "Weight files to prefer in a folder, for example fp16");
  app.add_option("--tokenizer", tokenizer, "Tokenizer folder, for single-file checkpoints");
}

void ModelOptions::add_prediction(CLI::App& app) {
  app.add_option("--prediction", prediction,
                 "epsilon or v: what the model predicts, where its files do not say it or say it "
                 "wrongly");
}

pipeline::ModelFileOptions ModelOptions::files() const {
  pipeline::ModelFileOptions files;
  files.variant = variant;
  files.tokenizer = tokenizer;
  files.prediction = chosen_prediction();
  return files;
}

std::optional<diffusion::Prediction> ModelOptions::chosen_prediction() const {
  return service::prediction_choice(prediction);
}

void SamplerOptions::add_to(CLI::App& app) {
  app.add_option("--sampler", sampler,
                 "ddim, ddpm, pndm, euler, euler-ancestral, heun, dpmpp-2m, dpmpp-2m-sde, "
                 "dpmpp-sde, unipc, lcm; most also with -karras [the model's own]");
  app.add_option("--spacing", spacing,
                 "leading, trailing or linspace: which noise levels of training the steps visit "
                 "[the model's own; trailing where training ended in zero SNR]");
}

diffusion::SamplerChoice SamplerOptions::chosen() const {
  return service::sampler_choice(sampler, spacing);
}

void add_clip_skip(CLI::App& app, std::int64_t& layer) {
  app.add_option("--clip-skip", layer, "Text encoder layer to use, counted from the end (1 = last)")
      ->capture_default_str();
}

}  // namespace ringlet::app
