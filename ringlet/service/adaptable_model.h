// A model or another network that is opened for its adapters' sake.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ringlet/adapt/set/targets.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::service {

/// What adapters are read for, converted for and merged into. Weights stay in the file, which is
/// opened once, until they are needed.
struct AdaptableModel {
  std::unique_ptr<pipeline::TextToImageModel> model;
  std::shared_ptr<const nn::FileStore> weights;  ///< of a network that is not a text-to-image model
  std::map<std::string, nn::ModuleIndex> others;  ///< that network by what the adapters call it
  std::string hash;                               ///< pipeline::model_hash, or of the weights' file
  std::map<std::string, std::string> class_names = {};  ///< of layers in other files

  adapt::Components components() const;
  /// Of a text-to-image model: "FLUX.1 dev"; "" of others.
  std::string kind() const { return model ? model->description().kind : ""; }
};

/// Opens a text-to-image model, or the network of a folder or .safetensors file (see
/// pipeline/other_network.h), for the adapters of these files. Throws as
/// pipeline::open_text_to_image_model and networks_of.
AdaptableModel open_adaptable(const std::filesystem::path& path,
                              const pipeline::ModelFileOptions& files,
                              const std::vector<pipeline::AdapterChoice>& adapters);

}  // namespace ringlet::service
