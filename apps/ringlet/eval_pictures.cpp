#include "eval_pictures.h"

#include "console.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/eval/feature_network.h"
#include "ringlet/nn/device.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

std::string identity_of(const std::vector<pipeline::AdapterChoice>& adapters) {
  std::vector<std::string> words;
  for (const pipeline::AdapterChoice& adapter : adapters)
    words.push_back(file_identity(adapter.file) + ":" + exact_number(adapter.strength));
  return words.empty() ? "none" : join(words);
}

}  // namespace

void check_making(const CLI::App& app, const std::string& model) {
  if (model.empty())
    refuse_group(app, kMaking, "it says how pictures are made, and without --model none are",
                 "give --model as well, or leave it out");
}

pipeline::LoadOptions load_options(const CommonOptions& common, const ModelOptions& files) {
  pipeline::LoadOptions load;
  load.files = files.files();
  load.device = common.select_device();
  load.precision = common.select_precision(load.device);
  return load;
}

std::string file_identity(const fs::path& path) {
  const std::string name = eval::folder_name(path);
  if (!fs::is_directory(path)) return eval::network_identity(name, path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".safetensors" || extension == ".json") files.push_back(entry.path());
  }
  return name + " (" + eval::hash_of_files(std::move(files)) + ")";
}

eval::GenerationRecord generation_record(const pipeline::StableDiffusion& model,
                                         const std::string& model_hash,
                                         const std::vector<pipeline::AdapterChoice>& adapters,
                                         const pipeline::GenerateRequest& request) {
  eval::GenerationRecord record;
  record.settings = {{"model", model.files().name + " (" + short_hash(model_hash) + ")"},
                     {"adapters", identity_of(adapters)},
                     {"steps", std::to_string(request.steps)},
                     {"guidance", exact_number(request.guidance.scale)},
                     {"sampler", request.sampler.name()},
                     {"size", request.size.text()},
                     {"precision", nn::precision_name(model.options().precision)},
                     {"clip skip", std::to_string(request.clip_skip)}};
  if (const auto prediction = model.options().files.prediction)
    record.settings.emplace_back("prediction",
                                 *prediction == diffusion::Prediction::v ? "v" : "epsilon");
  if (request.sampler.spacing)
    record.settings.emplace_back("spacing", diffusion::spacing_name(*request.sampler.spacing));
  if (!adapters.empty() && !adapters.front().blocks.empty()) {
    std::vector<std::string> words;
    for (const auto& [pattern, strength] : adapters.front().blocks)
      words.push_back(pattern + "=" + exact_number(strength));
    record.settings.emplace_back("block strengths", join(words));
  }
  return record;
}

std::vector<std::uint64_t> missing_seeds(
    std::uint64_t first, std::int64_t count,
    const std::function<fs::path(std::uint64_t seed)>& file_of) {
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t seed = first; seed < first + static_cast<std::uint64_t>(count); ++seed)
    if (!fs::exists(file_of(seed))) seeds.push_back(seed);
  return seeds;
}

std::vector<io::Image> make_pictures(const pipeline::StableDiffusion& model,
                                     const pipeline::GenerateRequest& request) {
  return model.decode(
      model.sample(request, [](const diffusion::StepReport&) { return !interrupted(); }));
}

}  // namespace ringlet::app
