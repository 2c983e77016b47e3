#include "model_options.h"

#include "ringlet/service/generator.h"
#include "ringlet/service/picture_request.h"

namespace ringlet::app {

void ModelOptions::add_files(OptionList& list) {
  list.add("variant", variant,
           "Variant of the weight files to prefer in a folder, for example fp16");
  list.add("tokenizer", tokenizer, "Tokenizer folder, for single-file checkpoints");
}

void ModelOptions::add_prediction(OptionList& list) {
  list.add(
      "prediction", prediction,
      "epsilon or v: prediction type, for models whose files do not state it or state it wrongly");
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

void SamplerOptions::add_to(OptionList& list) {
  list.add("sampler", sampler,
           "ddim, ddpm, pndm, euler, euler-ancestral, heun, dpmpp-2m, dpmpp-2m-sde, dpmpp-sde, "
           "unipc, lcm; most also with -karras")
      .or_else("the model's own");
  list.add("spacing", spacing, "Timestep spacing: leading, trailing or linspace")
      .or_else("the model's default; trailing for models with zero terminal SNR");
}

diffusion::SamplerChoice SamplerOptions::chosen() const {
  return service::sampler_choice(sampler, spacing);
}

void add_clip_skip(OptionList& list, std::int64_t& layer) {
  list.add("clip_skip", layer, "Text encoder layer to use, counted from the end (1 = last)");
}

}  // namespace ringlet::app
