#include "ringlet/service/adapters.h"

#include <cstdio>
#include <utility>

#include "ringlet/adapt/method_text.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/adapter_reader.h"

namespace ringlet::service {

namespace {

/// What is wrong with an adapter's file, beside the file and the model, whichever of them the
/// message leaves out.
[[noreturn]] void refuse(const Error& problem, const std::string& file, const std::string& kind) {
  if (problem.at_field()) throw Error(problem);
  const bool named = problem.where().starts_with(file);
  const std::string said = problem.message() + problem.hint();
  std::string hint = problem.hint();
  if (problem.code() == ErrorCode::mismatch && !kind.empty() &&
      said.find(kind) == std::string::npos && said.find("the model is ") == std::string::npos)
    hint += (hint.empty() ? "" : "; ") + ("this model is " + kind);
  throw Error(problem.code(), named ? problem.where() : file + ": " + problem.where(),
              problem.message(), hint);
}

formats::ReadAdapter read(const std::filesystem::path& file, const adapt::Components& components,
                          const std::string& hash, const std::string& kind) {
  try {
    return formats::read_adapter(file, components, hash);
  } catch (const Error& problem) {
    refuse(problem, file.string(), kind);
  }
}

}  // namespace

LoadedAdapters load_adapters(const pipeline::TextToImageModel& model,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash) {
  return load_adapters(pipeline::adaptable(model), choices, model_hash, model.description().kind);
}

LoadedAdapters load_adapters(const adapt::Components& components,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash, const std::string& model_kind) {
  LoadedAdapters adapters;
  for (const pipeline::AdapterChoice& choice : choices) {
    formats::ReadAdapter loaded = read(choice.file, components, model_hash, model_kind);
    loaded.set.set_strength(choice.strength);
    loaded.set.set_block_strengths(choice.blocks);
    char strength[32];
    std::snprintf(strength, sizeof strength, "%g", choice.strength);
    log(LogLevel::info, "adapter " + choice.file.string() + ": " + loaded.summary.dialect + ", " +
                            adapt::method_text(loaded.set.method()) + ", " +
                            human_count(loaded.set.parameter_count()) + " parameters, strength " +
                            strength);
    for (const std::string& decision : loaded.summary.decisions)
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
      throw Error(ErrorCode::invalid_argument, "adapter",
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

namespace {

/// A field of what is said about a control network, or "". Anybody's metadata: what is no JSON says
/// nothing.
std::string control_field(const adapt::AdapterFileInfo& info, const char* name) {
  const Json control = Json::parse(info.control, nullptr, /*allow_exceptions=*/false);
  if (!control.is_object()) return "";
  const auto found = control.find(name);
  return found != control.end() && found->is_string() ? printable(found->get<std::string>()) : "";
}

}  // namespace

std::string learnt_signal(const adapt::AdapterFileInfo& info) {
  return control_field(info, "signal");
}

void check_signal(const std::string& learnt, const std::string& signal) {
  if (!signal.empty() && !learnt.empty() && learnt != signal && learnt != "map")
    log(LogLevel::warning, "the encoder learnt to follow " + learnt + ", and the signal is " +
                               signal + ": pictures will hardly follow it");
}

std::unique_ptr<pipeline::ControlNetwork> control_network(const pipeline::TextToImageModel& model,
                                                          const LoadedAdapters& adapters,
                                                          const std::filesystem::path& controlnet) {
  if (!controlnet.empty()) return model.open_control(controlnet);
  const adapt::AdapterFileInfo* info = with_control(adapters);
  if (info == nullptr) return nullptr;
  const std::string learnt = learnt_signal(*info);
  const std::string network = control_field(*info, "network");
  log(LogLevel::info, "control: the adapter's " + (network.empty() ? "encoder" : network) +
                          ", which learnt to follow " +
                          (learnt.empty() ? "a signal that its file does not name" : learnt));
  const std::string made_for = control_field(*info, "model");
  return model.control_from_tensors(
      info->control_tensors,
      "the adapter file" + (made_for.empty() ? "" : ", trained on " + made_for));
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

}  // namespace ringlet::service
