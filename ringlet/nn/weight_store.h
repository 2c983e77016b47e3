// The stores behind a WeightSource.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

/// Tensors held in memory.
class MapStore final : public TensorStore {
 public:
  explicit MapStore(std::map<std::string, at::Tensor> tensors,
                    std::string description = "tensors in memory");
  std::optional<at::Tensor> find(const std::string& name, const Shape& shape,
                                 const Init& init) const override;
  std::vector<std::string> names() const override;
  std::string description() const override { return description_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
  std::string description_;
};

/// One or several memory-mapped safetensors files (shards); tensors are views of the mappings.
class FileStore final : public TensorStore {
 public:
  /// Throws Error(bad_format) when two files hold the same tensor.
  explicit FileStore(std::vector<std::shared_ptr<const io::SafetensorsFile>> files);

  /// A single file, or the shards named by a `*.safetensors.index.json` (their names must be plain
  /// file names beside the index, and the index and the shards must agree tensor by tensor).
  static std::shared_ptr<const FileStore> open(const std::filesystem::path& path);

  std::optional<at::Tensor> find(const std::string& name, const Shape& shape,
                                 const Init& init) const override;
  std::vector<std::string> names() const override;
  std::string description() const override { return description_; }
  void release() const override;
  const std::vector<std::shared_ptr<const io::SafetensorsFile>>& files() const { return files_; }

 private:
  struct Entry {
    std::shared_ptr<const io::SafetensorsFile> file;
    const io::TensorInfo* info;
  };
  std::vector<std::shared_ptr<const io::SafetensorsFile>> files_;
  std::map<std::string, Entry> entries_;
  std::string description_;
};

/// Invents every tensor that is asked for, from the seed and the tensor's name alone.
class RandomStore final : public TensorStore {
 public:
  explicit RandomStore(std::uint64_t seed) : seed_(seed) {}
  std::optional<at::Tensor> find(const std::string& name, const Shape& shape,
                                 const Init& init) const override;
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "random weights"; }

 private:
  std::uint64_t seed_;
};

/// A checkpoint without all that a network asks for: tensors whose names begin with one of
/// `replaced` are invented where it lacks them or has another shape (a new head), and those that
/// begin with one of `dropped` are not there (another task's head). What is invented depends on the
/// name alone, so that an adapter beside it finds it again.
class CompletedStore final : public TensorStore {
 public:
  CompletedStore(std::shared_ptr<const TensorStore> checkpoint, std::vector<std::string> replaced,
                 std::vector<std::string> dropped = {});
  std::optional<at::Tensor> find(const std::string& name, const Shape& shape,
                                 const Init& init) const override;
  std::vector<std::string> names() const override;
  std::string description() const override { return checkpoint_->description(); }
  void release() const override { checkpoint_->release(); }
  bool has_invented(const std::string& name) const override { return made_.contains(name); }

  /// The names of what it has invented so far.
  const std::set<std::string>& made() const { return made_; }

 private:
  static constexpr std::uint64_t kSeed = 0;
  friend std::shared_ptr<Layer> made_linear_layer(const std::string&, std::int64_t, std::int64_t);

  bool is_dropped(const std::string& name) const;

  std::shared_ptr<const TensorStore> checkpoint_;
  std::vector<std::string> replaced_, dropped_;
  RandomStore invented_{kSeed};
  mutable std::set<std::string> made_;
};

/// The linear layer that a CompletedStore makes where a checkpoint lacks it: W [out, in] and its
/// bias, functions of the name alone.
std::shared_ptr<Layer> made_linear_layer(const std::string& name, std::int64_t in,
                                         std::int64_t out);

}  // namespace ringlet::nn
