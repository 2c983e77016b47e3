#include "ringlet/pipeline/picture_text.h"

#include <locale>
#include <sstream>

#include "ringlet/core/sha256.h"
#include "ringlet/core/version.h"

namespace ringlet::pipeline {

std::string model_hash(const ModelDescription& model) {
  return sha256_file(model.hash_files.front());
}

std::string generation_parameters(const GenerateRequest& request, std::uint64_t seed,
                                  const ModelDescription& model, const std::string& hash) {
  constexpr std::size_t kShortHash = 10;  // digits that SD web UIs show
  std::ostringstream text;
  text.imbue(std::locale::classic());  // "7.5" also in a program that says "7,5"
  text << request.prompt << "\n";
  if (request.negative_prompt && !request.negative_prompt->empty())
    text << "Negative prompt: " << *request.negative_prompt << "\n";
  text << "Steps: " << *request.steps << ", Sampler: " << request.sampler.label()
       << ", CFG scale: " << *request.guidance << ", Seed: " << seed
       << ", Size: " << request.size.text() << ", Model hash: " << hash.substr(0, kShortHash)
       << ", Model: " << model.name;
  if (request.sampler.spacing)
    text << ", Timestep spacing: " << diffusion::spacing_name(*request.sampler.spacing);
  if (request.clip_skip > 1) text << ", Clip skip: " << request.clip_skip;
  if (request.guidance_rescale > 0.0) text << ", CFG Rescale phi: " << request.guidance_rescale;
  if (request.eta > 0.0) text << ", Eta: " << request.eta;
  if (request.init_image) text << ", Denoising strength: " << request.strength;
  if (request.control_image) text << ", Control strength: " << request.control_strength;
  if (!request.adapters.empty()) text << ", Adapters: \"" << request.adapters << "\"";
  text << ", Version: ringlet " << kVersion;
  return text.str();
}

}  // namespace ringlet::pipeline
