#include "model_options.h"

#include "ringlet/core/error.h"

namespace ringlet::app {

void ModelOptions::add_files(CLI::App& app) {
  app.add_option("--variant", variant, "Weight files to prefer in a folder, for example fp16");
  app.add_option("--tokenizer", tokenizer, "Tokenizer folder, for single-file checkpoints");
}

void ModelOptions::add_prediction(CLI::App& app) {
  app.add_option("--prediction", prediction,
                 "epsilon or v: what the model predicts, when its files say it wrongly");
}

pipeline::ModelFileOptions ModelOptions::files() const {
  pipeline::ModelFileOptions files;
  files.variant = variant;
  files.tokenizer = tokenizer;
  return files;
}

std::optional<diffusion::Prediction> ModelOptions::chosen_prediction() const {
  if (prediction.empty()) return std::nullopt;
  if (prediction == "epsilon") return diffusion::Prediction::epsilon;
  if (prediction == "v") return diffusion::Prediction::v;
  throw Error(ErrorCode::invalid_argument, "--prediction", "\"" + prediction + "\" is not known",
              "use epsilon or v");
}

void add_clip_skip(CLI::App& app, std::int64_t& layer) {
  app.add_option("--clip-skip", layer, "Text encoder layer to use, counted from the end (1 = last)")
      ->capture_default_str();
}

}  // namespace ringlet::app
