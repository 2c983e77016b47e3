#include "adapter_options.h"

#include <cstdio>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/pipeline/picture_text.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

double strength_in(std::string_view text, const char* option, const std::string& example) {
  const std::optional<double> strength = read_number(text);
  if (!strength)
    throw Error(ErrorCode::invalid_argument, option, "\"" + std::string(text) + "\" is no strength",
                "write a number, for example " + example);
  return *strength;
}

pipeline::AdapterChoice parse_adapter(const std::string& text) {
  if (fs::exists(text)) return {text, 1.0, {}};
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || !fs::exists(text.substr(0, colon)))
    throw Error(ErrorCode::not_found, text, "the adapter file does not exist",
                "give --adapter FILE or --adapter FILE:strength");
  const std::string file = text.substr(0, colon);
  return {
      file, strength_in(std::string_view(text).substr(colon + 1), "--adapter", file + ":0.8"), {}};
}

std::pair<std::string, double> parse_block(const std::string& text) {
  constexpr const char* kExample = "unet.up_blocks.*=0.5";
  const std::size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0)
    throw Error(ErrorCode::invalid_argument, "--block-strength",
                "\"" + text + "\" lacks a strength",
                std::string("write PATTERN=strength, for example ") + kExample);
  return {text.substr(0, equals),
          strength_in(std::string_view(text).substr(equals + 1), "--block-strength", kExample)};
}

/// "canny", or "" where the file does not say it: its metadata are anybody's.
std::string learnt_signal(const adapt::AdapterFileInfo& info) {
  const auto control = nlohmann::json::parse(info.control, nullptr, /*allow_exceptions=*/false);
  if (!control.is_object()) return "";
  const auto signal = control.find("signal");
  return signal != control.end() && signal->is_string() ? printable(signal->get<std::string>())
                                                        : "";
}

}  // namespace

void AdapterOptions::add_to(CLI::App& app) {
  repeatable(
      app.add_option("--adapter", files,
                     "Adapter file (ringlet, kohya, LyCORIS, diffusers) or PEFT folder, with "
                     ":strength where it is not 1; may be given several times"));
  repeatable(app.add_option("--block-strength", blocks,
                            "PATTERN=strength: the adapters' strength in some layers, as a factor, "
                            "for example \"unet.up_blocks.*=0.5\"; may be given several times"));
}

std::vector<pipeline::AdapterChoice> parse_adapters(const AdapterOptions& options) {
  std::vector<std::pair<std::string, double>> blocks;
  for (const std::string& text : options.blocks) blocks.push_back(parse_block(text));
  std::vector<pipeline::AdapterChoice> choices;
  for (const std::string& text : options.files) {
    choices.push_back(parse_adapter(text));
    choices.back().blocks = blocks;
  }
  return choices;
}

LoadedAdapters load_adapters(const pipeline::StableDiffusion& model,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash) {
  return load_adapters(pipeline::adaptable(model), choices, model_hash);
}

LoadedAdapters load_adapters(const adapt::Components& components,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash) {
  LoadedAdapters adapters;
  for (const pipeline::AdapterChoice& choice : choices) {
    formats::ReadAdapter loaded = formats::read_adapter(choice.file, components, model_hash);
    loaded.set.set_strength(choice.strength);
    loaded.set.set_block_strengths(choice.blocks);
    char strength[32];
    std::snprintf(strength, sizeof strength, "%g", choice.strength);
    log(LogLevel::info, "adapter " + choice.file.string() + ": " + loaded.report.dialect + ", " +
                            loaded.set.method().text() + ", " +
                            human_count(loaded.set.parameter_count()) + " parameters, strength " +
                            strength);
    for (const std::string& decision : loaded.report.decisions)
      log(LogLevel::info, "  " + decision);
    adapters.sets.push_back(std::move(loaded.set));
    adapters.infos.push_back(std::move(loaded.info));
  }
  return adapters;
}

const adapt::AdapterFileInfo* with_control(const LoadedAdapters& adapters) {
  const adapt::AdapterFileInfo* found = nullptr;
  for (const adapt::AdapterFileInfo& info : adapters.infos) {
    if (info.control.empty()) continue;
    if (found != nullptr)
      throw Error(ErrorCode::invalid_argument, "--adapter",
                  "two of the adapters hold a control encoder", "give at most one of them");
    found = &info;
  }
  return found;
}

void keep_control(const LoadedAdapters& adapters, adapt::AdapterFileInfo& info) {
  const adapt::AdapterFileInfo* control = with_control(adapters);
  if (control == nullptr) return;
  info.control = control->control;
  info.control_tensors = control->control_tensors;
}

std::optional<pipeline::ControlNetwork> control_network(const pipeline::StableDiffusion& model,
                                                        const LoadedAdapters& adapters,
                                                        const std::string& controlnet,
                                                        const std::string& signal) {
  if (!controlnet.empty()) return pipeline::ControlNetwork::open(controlnet, model);
  const adapt::AdapterFileInfo* info = with_control(adapters);
  if (info == nullptr) return std::nullopt;
  const std::string learnt = learnt_signal(*info);
  log(LogLevel::info, "control: the adapter's encoder, which learnt to follow " +
                          (learnt.empty() ? "a signal that its file does not name" : learnt));
  if (!signal.empty() && !learnt.empty() && learnt != signal && learnt != "map")
    log(LogLevel::warning, "the encoder learnt to follow " + learnt + ", and the signal is " +
                               signal + ": pictures will hardly follow it");
  return pipeline::ControlNetwork::from_tensors(info->control_tensors, model, "the adapter file");
}

adapt::Components OpenedModel::components() const {
  if (diffusion) return pipeline::adaptable(*diffusion);
  adapt::Components components;
  for (const auto& [name, index] : others) components.emplace(name, &index);
  return components;
}

OpenedModel open_for_adapters(const std::string& path, const ModelOptions& options,
                              const std::vector<pipeline::AdapterChoice>& choices) {
  if (const auto file = pipeline::other_network_file(path); !file.empty()) {
    std::vector<fs::path> adapters;
    for (const pipeline::AdapterChoice& choice : choices) adapters.push_back(choice.file);
    auto networks = pipeline::networks_of_file(file, adapters);
    auto names = pipeline::class_names(path, networks);
    return {std::nullopt, std::move(networks), sha256_file(file), std::move(names)};
  }
  pipeline::LoadOptions load;
  load.files = options.files();
  load.low_memory = true;
  auto model = pipeline::StableDiffusion::open(path, load);
  std::string hash = pipeline::model_hash(model.files());
  auto names = pipeline::class_names(model);
  return {std::move(model), {}, std::move(hash), std::move(names)};
}

std::vector<const adapt::AdapterSet*> pointers_to(const std::vector<adapt::AdapterSet>& sets) {
  std::vector<const adapt::AdapterSet*> pointers;
  for (const adapt::AdapterSet& set : sets) pointers.push_back(&set);
  return pointers;
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
