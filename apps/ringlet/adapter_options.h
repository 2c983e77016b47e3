// Adapters on the command line: --adapter FILE[:strength].
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "model_options.h"
#include "ringlet/adapt/adapter_file.h"
#include "ringlet/adapt/adapter_set.h"
#include "ringlet/pipeline/merge.h"

namespace ringlet::app {

/// --adapter and --block-strength.
struct AdapterOptions {
  std::vector<std::string> files;
  std::vector<std::string> blocks;

  void add_to(CLI::App& app);
};

/// Reads FILE or FILE:strength, and PATTERN=strength for blocks. Throws Error(invalid_argument |
/// not_found).
std::vector<pipeline::AdapterChoice> parse_adapters(const AdapterOptions& options);

struct LoadedAdapters {
  std::vector<adapt::AdapterSet> sets;
  std::vector<adapt::AdapterFileInfo> infos;  ///< of the files, in the same order
};

/// Loads adapters of any program for a model and sets their strengths; they are not attached.
/// `model_hash` may be empty. Throws as formats::read_adapter.
LoadedAdapters load_adapters(const adapt::Components& components,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash);
LoadedAdapters load_adapters(const pipeline::StableDiffusion& model,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash);

/// The one file among them that holds a control encoder, or null. Throws Error(invalid_argument)
/// when there are several.
const adapt::AdapterFileInfo* with_control(const LoadedAdapters& adapters);

/// Puts the control encoder that one of the adapters holds into what is written of them. Throws as
/// with_control.
void keep_control(const LoadedAdapters& adapters, adapt::AdapterFileInfo& info);

/// The ControlNet of this folder, or where that is empty the encoder in an adapter's file, or
/// nothing. Warns when that encoder learnt to follow another signal than `signal`, "" for one that
/// is not known. Throws as ControlNetwork::open and from_tensors.
std::optional<pipeline::ControlNetwork> control_network(const pipeline::StableDiffusion& model,
                                                        const LoadedAdapters& adapters,
                                                        const std::string& controlnet,
                                                        const std::string& signal);

/// A model, or another network, that is opened for its adapters' sake: weights stay in the file
/// until they are needed.
struct OpenedModel {
  std::optional<pipeline::StableDiffusion> diffusion;
  std::map<std::string, nn::ModuleIndex> others;  ///< where it is no Stable Diffusion
  std::string hash;
  std::map<std::string, std::string> class_names = {};  ///< pipeline::class_names

  adapt::Components components() const;
};
OpenedModel open_for_adapters(const std::string& path, const ModelOptions& options,
                              const std::vector<pipeline::AdapterChoice>& choices);

std::vector<const adapt::AdapterSet*> pointers_to(const std::vector<adapt::AdapterSet>& sets);

/// "name:1, other:0.5".
std::string describe_adapters(const std::vector<pipeline::AdapterChoice>& choices);

}  // namespace ringlet::app
