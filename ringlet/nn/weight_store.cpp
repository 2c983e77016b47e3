#include "ringlet/nn/weight_store.h"

#include <algorithm>
#include <set>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/path_guard.h"
#include "ringlet/core/random.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::nn {
namespace {

template <class Map>
std::vector<std::string> keys(const Map& map) {
  std::vector<std::string> names;
  names.reserve(map.size());
  for (const auto& entry : map) names.push_back(entry.first);
  return names;
}

/// The `weight_map` of a shard index: tensor name to file name.
std::map<std::string, std::string> read_weight_map(const std::filesystem::path& index) {
  const Json json = read_json_file(index);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw Error(ErrorCode::bad_format, index.string(), "has no \"weight_map\" object",
                "download the index file again");
  return json_require<std::map<std::string, std::string>>(json, "weight_map", index.string());
}

}  // namespace

MapStore::MapStore(std::map<std::string, at::Tensor> tensors, std::string description)
    : tensors_(std::move(tensors)), description_(std::move(description)) {}

std::optional<at::Tensor> MapStore::find(const std::string& name, const Shape&, const Init&) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return std::nullopt;
  return found->second;
}

std::vector<std::string> MapStore::names() const { return keys(tensors_); }

FileStore::FileStore(std::vector<std::shared_ptr<const io::SafetensorsFile>> files)
    : files_(std::move(files)) {
  if (!files_.empty()) description_ = files_.front()->path().string();
  for (const auto& file : files_)
    for (const io::TensorInfo& info : file->tensors())
      if (!entries_.emplace(info.name, Entry{file, &info}).second)
        throw Error(ErrorCode::bad_format, file->path().string(),
                    "tensor \"" + info.name + "\" is already in another shard");
}

std::shared_ptr<const FileStore> FileStore::open(const std::filesystem::path& path) {
  if (path.extension() != ".json")
    return std::make_shared<FileStore>(std::vector{io::SafetensorsFile::open(path)});

  const std::map<std::string, std::string> weight_map = read_weight_map(path);
  std::set<std::string> shard_names;
  for (const auto& entry : weight_map) shard_names.insert(entry.second);
  std::vector<std::shared_ptr<const io::SafetensorsFile>> shards;
  for (const std::string& name : shard_names)
    shards.push_back(io::SafetensorsFile::open(resolve_under(path.parent_path(), name)));
  auto store = std::make_shared<FileStore>(std::move(shards));
  store->description_ = path.string();
  for (const auto& [tensor, shard] : weight_map) {
    const auto found = store->entries_.find(tensor);
    if (found == store->entries_.end() || found->second.file->path().filename() != shard)
      throw Error(
          ErrorCode::bad_format, path.string(),
          "the index places tensor \"" + tensor + "\" in \"" + shard + "\", but it is not there",
          "download the shards and the index again");
  }
  return store;
}

std::optional<at::Tensor> FileStore::find(const std::string& name, const Shape&,
                                          const Init&) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return std::nullopt;
  return io::view_tensor(found->second.file, *found->second.info);
}

std::vector<std::string> FileStore::names() const { return keys(entries_); }

void FileStore::release() const {
  for (const auto& file : files_) file->release();
}

std::optional<at::Tensor> RandomStore::find(const std::string& name, const Shape& shape,
                                            const Init& init) const {
  if (init.kind == Init::Kind::constant) return at::full(shape, init.value, at::kFloat);
  at::Tensor tensor = at::empty(shape, at::kFloat);
  const std::span<float> values(tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
  RandomStream stream = Random(seed_).stream(name);
  if (init.kind == Init::Kind::normal) {
    stream.fill_normal(values);
    return tensor.mul_(init.value);
  }
  stream.fill_uniform(values);
  return tensor.mul_(2.0 * init.value).sub_(init.value);
}

CompletedStore::CompletedStore(std::shared_ptr<const TensorStore> checkpoint,
                               std::vector<std::string> replaced, std::vector<std::string> dropped)
    : checkpoint_(std::move(checkpoint)),
      replaced_(std::move(replaced)),
      dropped_(std::move(dropped)) {}

bool CompletedStore::is_dropped(const std::string& name) const {
  return std::ranges::any_of(dropped_,
                             [&](const std::string& prefix) { return name.starts_with(prefix); });
}

std::optional<at::Tensor> CompletedStore::find(const std::string& name, const Shape& shape,
                                               const Init& init) const {
  std::optional<at::Tensor> found;
  if (!is_dropped(name)) found = checkpoint_->find(name, shape, init);
  const bool fits = found && found->sizes() == at::IntArrayRef(shape);
  const bool replaced = std::ranges::any_of(
      replaced_, [&](const std::string& prefix) { return name.starts_with(prefix); });
  if (fits || !replaced) return found;
  made_.insert(name);
  return invented_.find(name, shape, init);
}

std::shared_ptr<Layer> made_linear_layer(const std::string& name, std::int64_t in,
                                         std::int64_t out) {
  const WeightSource source(std::make_shared<RandomStore>(CompletedStore::kSeed));
  const Linear layer(source.at(name), in, out);
  return source.finish().layers.at(name);
}

std::vector<std::string> CompletedStore::names() const {
  std::vector<std::string> names = checkpoint_->names();
  std::erase_if(names, [this](const std::string& name) { return is_dropped(name); });
  return names;
}

}  // namespace ringlet::nn
