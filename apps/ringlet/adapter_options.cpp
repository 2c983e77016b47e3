#include "adapter_options.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "options.h"
#include "ringlet/adapt/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

pipeline::AdapterChoice parse_adapter(const std::string& text) {
  if (fs::exists(text)) return {text, 1.0};
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || !fs::exists(text.substr(0, colon)))
    throw Error(ErrorCode::not_found, text, "the adapter file does not exist",
                "give --adapter FILE or --adapter FILE:strength");
  double strength = 0.0;
  const char* end = text.data() + text.size();
  const auto [last, problem] = std::from_chars(text.data() + colon + 1, end, strength);
  if (problem != std::errc() || last != end || !std::isfinite(strength))
    throw Error(ErrorCode::invalid_argument, "--adapter",
                "\"" + text.substr(colon + 1) + "\" is no strength",
                "write a number behind the colon, for example " + text.substr(0, colon) + ":0.8");
  return {text.substr(0, colon), strength};
}

}  // namespace

void add_adapter_option(CLI::App& app, std::vector<std::string>& adapters) {
  repeatable(
      app.add_option("--adapter", adapters,
                     "Adapter file, with :strength where it is not 1; may be given several times"));
}

std::vector<pipeline::AdapterChoice> parse_adapters(const std::vector<std::string>& texts) {
  std::vector<pipeline::AdapterChoice> choices;
  for (const std::string& text : texts) choices.push_back(parse_adapter(text));
  return choices;
}

std::vector<adapt::AdapterSet> load_adapters(const pipeline::StableDiffusion& model,
                                             const std::vector<pipeline::AdapterChoice>& choices,
                                             const std::string& model_hash) {
  std::vector<adapt::AdapterSet> sets;
  for (const pipeline::AdapterChoice& choice : choices) {
    adapt::LoadedAdapter loaded =
        adapt::load_adapter(choice.file, pipeline::adaptable(model), model_hash);
    loaded.set.set_strength(choice.strength);
    char strength[32];
    std::snprintf(strength, sizeof strength, "%g", choice.strength);
    log(LogLevel::info, "adapter " + choice.file.string() + ": " + loaded.set.method().text() +
                            ", " + human_count(loaded.set.parameter_count()) +
                            " parameters, strength " + strength);
    sets.push_back(std::move(loaded.set));
  }
  return sets;
}

std::string describe_adapters(const std::vector<pipeline::AdapterChoice>& choices) {
  std::vector<std::string> words;
  for (const pipeline::AdapterChoice& choice : choices) {
    char strength[32];
    std::snprintf(strength, sizeof strength, ":%g", choice.strength);
    words.push_back(choice.file.stem().string() + strength);
  }
  return join(words);
}

}  // namespace ringlet::app
