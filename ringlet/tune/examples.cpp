#include "ringlet/tune/examples.h"

#include <algorithm>
#include <array>

#include <ATen/ops/cat.h>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/sha256.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::tune {

namespace fs = std::filesystem;

namespace {

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") ||
         fs::exists(folder / "model.safetensors.index.json");
}

/// What tasks read beside pictures.
bool is_example(const fs::path& file) {
  static constexpr std::array kExtensions = {".txt", ".caption", ".wav"};
  return std::ranges::find(kExtensions, data::lower_extension(file)) != kExtensions.end();
}

/// `parents` are the folders on the way here, so that a link to one of them is not followed.
void add_folder(const fs::path& folder, const std::string& name, std::vector<fs::path> parents,
                std::string& text) {
  const fs::path here = fs::canonical(folder);
  if (std::ranges::find(parents, here) != parents.end()) return;
  parents.push_back(here);
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) entries.push_back(entry.path());
  std::ranges::sort(entries);
  for (const fs::path& path : entries) {
    const std::string full = name + "/" + path.filename().string();
    std::error_code problem;
    if (!fs::exists(path, problem)) continue;  // a link to nothing
    if (fs::is_directory(path))
      add_folder(path, full, parents, text);
    else if (data::is_picture(path))
      text += full + "\n" + std::to_string(fs::file_size(path)) + "\n";
    else if (is_example(path))
      text += full + "\n" + sha256_file(path) + "\n";
  }
}

}  // namespace

std::string fingerprint(const fs::path& data) {
  if (data.empty()) return "";
  if (!fs::is_directory(data)) return sha256_file(data);
  std::string text;
  add_folder(data, "", {}, text);
  return sha256_text(text);
}

FolderWeights::FolderWeights(const TaskOptions& options, const std::string& kind,
                             const Json& config)
    : layout_(kind, {}, config) {
  if (!has_weights(options.model) && options.random_seed) {
    random_ = std::make_shared<nn::RandomStore>(*options.random_seed);
    return;
  }
  const auto file = nn::FileStore::open(pipeline::find_weights(options.model, "model", ""));
  layout_ = models::PublishedLayout(kind, file->names(), config);
  published_ = std::make_shared<models::PublishedStore>(file, layout_);
}

bool FolderWeights::has(const std::string& name, const nn::Shape& shape) const {
  if (random_) return true;
  const auto found = published_->find(name, shape, {});
  return found && found->sizes() == at::IntArrayRef(shape);
}

std::shared_ptr<const nn::TensorStore> FolderWeights::store(std::vector<std::string> heads,
                                                            std::vector<std::string> dropped) {
  if (random_) return random_;
  completed_ =
      std::make_shared<nn::CompletedStore>(published_, std::move(heads), std::move(dropped));
  return completed_;
}

std::map<std::string, std::string> FolderWeights::made_layers() const {
  constexpr std::string_view kWeight = ".weight";
  std::map<std::string, std::string> layers;
  if (!completed_) return layers;
  for (const std::string& name : completed_->made())
    if (name.ends_with(kWeight)) {
      const std::string layer = name.substr(0, name.size() - kWeight.size());
      layers.emplace(layout_.layer_name(layer), layer);
    }
  return layers;
}

Json with_class(Json config, const std::string& kind, const char* architecture) {
  config["model_type"] = kind;
  config["architectures"] = {architecture};
  return config;
}

Json read_config(const TaskOptions& options, const char* known) {
  const fs::path file = options.model / "config.json";
  if (!fs::exists(file))
    throw Error(ErrorCode::not_found, file.string(), "the network's description is missing",
                std::string("a folder with config.json and model.safetensors is needed: ") + known);
  return read_json_file(file);
}

std::map<std::string, std::string> folder_files(const fs::path& folder,
                                                std::span<const char* const> names) {
  std::map<std::string, std::string> contents;
  for (const char* name : names)
    if (fs::exists(folder / name)) contents[name] = read_file(folder / name);
  return contents;
}

at::Tensor PreparedPictures::batch(const std::vector<fs::path>& files, at::Device device) const {
  constexpr std::size_t kMost = std::size_t{1} << 30;
  std::vector<at::Tensor> rows;
  for (const fs::path& file : files) {
    const auto kept = kept_.find(file);
    rows.push_back(kept != kept_.end() ? kept->second : eval::prepared(io::read_image(file), how_));
    if (kept != kept_.end() || bytes_ > kMost) continue;
    bytes_ += rows.back().nbytes();
    kept_.emplace(file, rows.back());
  }
  return nn::to_device(at::cat(rows), device);
}

}  // namespace ringlet::tune
