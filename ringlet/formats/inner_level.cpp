#include "ringlet/formats/inner_level.h"

#include <array>
#include <string_view>
#include <utility>

namespace ringlet::formats {
namespace {

/// What the classes of a network start with, and its level (base_model_prefix).
constexpr auto kLevels =
    std::to_array<std::pair<std::string_view, std::string_view>>({{"GPT2", "transformer."},
                                                                  {"GPTNeo", "transformer."},
                                                                  {"Bert", "bert."},
                                                                  {"Roberta", "roberta."},
                                                                  {"XLMRoberta", "roberta."},
                                                                  {"DistilBert", "distilbert."},
                                                                  {"Electra", "electra."},
                                                                  {"ViT", "vit."},
                                                                  {"Wav2Vec2", "wav2vec2."},
                                                                  {"ResNet", "resnet."},
                                                                  {"Llama", "model."},
                                                                  {"Mistral", "model."},
                                                                  {"Qwen2", "model."}});

}  // namespace

std::string inner_level(const std::string& architecture) {
  for (const auto& [start, level] : kLevels) {
    if (!architecture.starts_with(start)) continue;
    const std::string_view rest = std::string_view(architecture).substr(start.size());
    if (rest.starts_with("For") || rest.find("Head") != std::string_view::npos)
      return std::string(level);
  }
  return "";
}

std::optional<ModuleName> find_at_other_level(const ModuleNames& names, const std::string& prefix,
                                              const std::string& component) {
  constexpr std::string_view kPeft = "base_model.model.";
  if (!prefix.starts_with(kPeft)) return std::nullopt;
  const std::string path = prefix.substr(kPeft.size());
  std::optional<ModuleName> only;
  for (const auto& [start, level] : kLevels) {
    const std::string other =
        path.starts_with(level) ? path.substr(level.size()) : std::string(level) + path;
    const auto found = names.find(std::string(kPeft) + other, component);
    // A diffusion model's networks have no head.
    if (!found || found->component == "unet" || found->component.starts_with("text_encoder"))
      continue;
    if (only && !(*only == *found)) return std::nullopt;
    only = found;
  }
  return only;
}

}  // namespace ringlet::formats
