#include "ringlet/eval/dreambooth_prompts.h"

#include <array>

namespace ringlet::eval {
namespace {

constexpr std::array kScenes = {"a {} in the jungle",
                                "a {} in the snow",
                                "a {} on the beach",
                                "a {} on a cobblestone street",
                                "a {} on top of pink fabric",
                                "a {} on top of a wooden floor",
                                "a {} with a city in the background",
                                "a {} with a mountain in the background",
                                "a {} with a blue house in the background",
                                "a {} on top of a purple rug in a forest"};

constexpr std::array kMoreScenes = {"a {} with a wheat field in the background",
                                    "a {} with a tree and autumn leaves in the background",
                                    "a {} with the Eiffel Tower in the background",
                                    "a {} floating on top of water",
                                    "a {} floating in an ocean of milk",
                                    "a {} on top of green grass with sunflowers around it",
                                    "a {} on top of a mirror",
                                    "a {} on top of the sidewalk in a crowded street",
                                    "a {} on top of a dirt road",
                                    "a {} on top of a white rug"};

constexpr std::array kOutfits = {
    "a {} wearing a red hat",       "a {} wearing a santa hat",
    "a {} wearing a rainbow scarf", "a {} wearing a black top hat and a monocle",
    "a {} in a chef outfit",        "a {} in a firefighter outfit",
    "a {} in a police outfit",      "a {} wearing pink glasses",
    "a {} wearing a yellow shirt",  "a {} in a purple wizard outfit"};

constexpr std::array kProperties = {"a red {}", "a purple {}", "a shiny {}", "a wet {}",
                                    "a cube shaped {}"};

}  // namespace

std::vector<std::string> published_prompts(std::string_view name) {
  const bool live = name == "dreambooth-live";
  if (!live && name != "dreambooth-objects") return {};
  std::vector<std::string> prompts(kScenes.begin(), kScenes.end());
  const auto& middle = live ? kOutfits : kMoreScenes;
  prompts.insert(prompts.end(), middle.begin(), middle.end());
  prompts.insert(prompts.end(), kProperties.begin(), kProperties.end());
  return prompts;
}

std::string with_subject(const std::string& prompt, const std::string& subject) {
  const std::size_t place = prompt.find("{}");
  return place == std::string::npos ? prompt : std::string(prompt).replace(place, 2, subject);
}

}  // namespace ringlet::eval
