#include "ringlet/service/adaptable_model.h"

#include <utility>

#include "ringlet/core/sha256.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/pipeline/picture_text.h"

namespace ringlet::service {

adapt::Components AdaptableModel::components() const {
  if (model) return pipeline::adaptable(*model);
  adapt::Components components;
  for (const auto& [name, index] : others) components.emplace(name, &index);
  return components;
}

AdaptableModel open_adaptable(const std::filesystem::path& path,
                              const pipeline::ModelFileOptions& files,
                              const std::vector<pipeline::AdapterChoice>& adapters) {
  const auto file = pipeline::open_network_file(path);
  if (file && (pipeline::find_family(file->files().front()) == nullptr ||
               pipeline::is_transformer_alone(file, files))) {
    std::vector<std::filesystem::path> names;
    for (const pipeline::AdapterChoice& choice : adapters) names.push_back(choice.file);
    AdaptableModel model;
    model.weights = file;
    model.others = pipeline::networks_of(file, names);
    model.hash = sha256_file(file->files().front()->path());
    model.class_names = pipeline::class_names(path, *file, model.others);
    return model;
  }
  pipeline::LoadOptions load;
  load.files = files;
  if (file) load.files.single_file = file->files().front();
  load.low_memory = true;
  AdaptableModel opened;
  opened.model = pipeline::open_text_to_image_model(path, load);
  opened.hash = pipeline::model_hash(opened.model->description());
  opened.class_names = opened.model->class_names();
  return opened;
}

}  // namespace ringlet::service
