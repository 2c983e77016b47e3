#include "ringlet/pipeline/text_to_image_model.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include <ATen/TensorOperators.h>

#include "ringlet/core/error.h"

namespace ringlet::pipeline {
namespace {

[[noreturn]] void cannot(const TextToImageModel& model, const std::string& what,
                         const std::string& hint = {}) {
  throw Error(ErrorCode::unsupported, model.description().path.string(),
              model.description().kind + " " + what, hint);
}

}  // namespace

at::Tensor LatentPosterior::sample(const at::Tensor& noise) const {
  return mean + deviation * noise;
}

double step_peak(std::span<const StepBlock> blocks, const nn::RecomputedBlocks& recomputed) {
  double kept = 0.0, peak = 0.0;
  for (const StepBlock& block : blocks) {
    kept += block.before;
    peak = std::max(peak, kept + block.inside + block.passing);
    if (block.name.empty() || !recomputed.contains(block.name)) kept += block.inside;
  }
  return peak;
}

struct TextToImageModel::ToldPrompts {
  bool is_new(const std::string& prompt) {
    const std::lock_guard lock(mutex);
    return prompts.insert(prompt).second;
  }
  std::mutex mutex;
  std::set<std::string> prompts;
};

TextToImageModel::TextToImageModel() : told_(std::make_shared<ToldPrompts>()) {}

Conditions TextToImageModel::without_prompt(const Conditions&, std::int64_t clip_skip) const {
  return encode_prompts(std::array<std::string, 1>{}, clip_skip);
}

void TextToImageModel::add_sizes(Conditions&, std::span<const PictureFrame>) const {}

std::vector<std::string> TextToImageModel::add_embeddings(const std::filesystem::path&,
                                                          const std::string&) {
  cannot(*this, "does not support textual inversion");
}

void TextToImageModel::check_embedding_words(std::span<const std::string>) const {}

void TextToImageModel::add_masked_picture(Conditions&, const at::Tensor&, const at::Tensor&) const {
  cannot(*this, "does not support inpainting");
}

std::unique_ptr<ControlNetwork> TextToImageModel::create_control(ControlKind, std::uint64_t) const {
  cannot(*this, "does not support control networks");
}

std::unique_ptr<ControlNetwork> TextToImageModel::control_from_tensors(
    const std::map<std::string, at::Tensor>&, const std::string&) const {
  cannot(*this, "does not support control networks");
}

std::unique_ptr<ControlNetwork> TextToImageModel::open_control(const std::filesystem::path&) const {
  cannot(*this, "does not support ControlNets",
         "give an adapter that was trained with `control`: it holds its control network");
}

void TextToImageModel::save_file(const std::filesystem::path&, const Replacements&) const {
  cannot(*this, "cannot be written as a single file", "give a folder name for the result");
}

Conditions TextToImageModel::conditions(std::span<const std::string> prompts,
                                        std::span<const PictureFrame> frames,
                                        std::int64_t clip_skip) const {
  Conditions made = encode_prompts(prompts, clip_skip);
  add_sizes(made, frames);
  return made;
}

at::Tensor TextToImageModel::control_view(const ControlNetwork& network,
                                          const at::Tensor& pictures) const {
  if (network.sees_latents()) return encode(pictures * 2.0 - 1.0).mean;
  return pictures.to(options().device);
}

std::vector<CutPrompt> TextToImageModel::newly_cut(std::span<const std::string> prompts) const {
  std::vector<CutPrompt> cut;
  for (const std::string& prompt : prompts) {
    PromptTokens read = tokens(prompt);
    if (!read.cut.empty() && told_->is_new(prompt))
      cut.push_back({prompt, read.total, read.limit, std::move(read.cut)});
  }
  return cut;
}

adapt::Components adaptable(const TextToImageModel& model) {
  adapt::Components components;
  for (const auto& [name, network] : model.networks())
    if (network.role != NetworkRole::autoencoder) components.emplace(name, &network.index);
  return components;
}

Replacements trained_tensors(const TextToImageModel& model) {
  Replacements tensors;
  for (const auto& [name, network] : model.networks()) tensors[name] = network.index.tensors;
  return tensors;
}

}  // namespace ringlet::pipeline
