// Where a network's weights come from: a scope of dotted names over a store of tensors.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/block.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/stored_weight.h"
#include "ringlet/nn/tensor_slots.h"

namespace ringlet::nn {

using Shape = std::vector<std::int64_t>;

/// How a parameter starts when the store invents it (RandomStore); file stores ignore it.
struct Init {
  enum class Kind { constant, uniform, normal } kind = Kind::constant;
  double value = 0.0;  ///< the constant, the bound of U(-bound, bound), or the standard deviation

  static Init constant(double value) { return {Kind::constant, value}; }
  static Init uniform(double bound) { return {Kind::uniform, bound}; }
  static Init normal(double deviation) { return {Kind::normal, deviation}; }
};

/// A flat collection of tensors by full dotted name.
class TensorStore {
 public:
  virtual ~TensorStore() = default;

  /// The tensor (possibly a view of a mapped file), or nothing. `shape` and `init` matter only to
  /// stores that invent tensors.
  virtual std::optional<at::Tensor> find(const std::string& name, const Shape& shape,
                                         const Init& init) const = 0;

  /// Whether find() has invented this tensor in the place of one that a checkpoint lacks: the start
  /// of something that is going to learn.
  virtual bool has_invented(const std::string& name) const {
    static_cast<void>(name);
    return false;
  }

  /// Gives memory back: tensors stay valid, but file pages are read again when they are next used.
  virtual void release() const {}

  virtual std::vector<std::string> names() const = 0;  ///< all names it holds, sorted
  virtual std::string description() const = 0;         ///< for error texts: usually the file
};

/// What the tensors become on their way into a network.
struct WeightOptions {
  at::ScalarType dtype = at::kFloat;  ///< compute type
  at::Device device = at::kCPU;
  bool keep_storage_type = false;  ///< leave matrices and kernels in the file's narrower type
  /// Tensors of the network's own that record gradients. They are kept in fp32 whatever the compute
  /// type, in which an update smaller than a rounding step would be lost.
  bool trainable = false;
  /// Tensors stay as their store has them, in host memory, until NetworkMemory brings them to the
  /// device in their type.
  bool at_home = false;
  /// How the weights of linear layers and convolutions that stay frozen are kept; where it is
  /// as_stored, the type follows from the options above.
  WeightStorage storage = WeightStorage::as_stored;
  /// Beginnings of the names of layers whose weights are not kept in `storage`.
  std::vector<std::string> wide_layers = {};
};

/// Everything that a network took from its source, by full dotted name.
struct ModuleIndex {
  std::map<std::string, std::shared_ptr<Layer>> layers;  ///< linear and convolution layers
  /// Every parameter that is a tensor: weights in codes are in their layers only.
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, at::ScalarType> device_types;  ///< of those at home, where they compute
  std::map<std::string, std::shared_ptr<BlockState>> blocks;  ///< parts that are computed as one
  std::shared_ptr<TensorSlots> slots = std::make_shared<TensorSlots>();  ///< their changes

  /// Lays all layers out for speed (Layer::pack). `source`, where they came from, gives its memory
  /// back on the way, so that no weight is in memory twice.
  void pack(const TensorStore& source, WeightUse use = WeightUse::inference) const;

  /// Bytes of all parameters as they are kept.
  std::uint64_t bytes() const;
};

/// A scope: `source.at("down_blocks").at(0).get("weight", {out, in})`. Cheap to copy.
class WeightSource {
 public:
  explicit WeightSource(std::shared_ptr<const TensorStore> store, WeightOptions options = {});

  WeightSource at(std::string_view name) const;
  WeightSource at(std::int64_t index) const { return at(std::to_string(index)); }

  /// The tensor `name` of this scope in the options' type and on their device. Throws
  /// Error(mismatch) with the full dotted name when it is missing or has another shape.
  at::Tensor get(std::string_view name, const Shape& shape, const Init& init = {}) const;

  /// The tensor "weight" of a linear layer or convolution [out, …], kept as the options' storage
  /// says. Some stay as get() returns them: those that learn, those that the options except, heads
  /// that a checkpoint lacks, and convolutions that read or make pictures, which are small and
  /// change every pixel. Throws as get, and Error(non_finite) for numbers that cannot be narrowed.
  StoredWeight weight(const Shape& shape, const Init& init) const;

  /// The same of a checkpoint that stores [in, out]; what is returned is [out, in].
  StoredWeight transposed_weight(const Shape& stored, const Init& init) const;

  bool has(std::string_view name) const;               ///< a tensor of exactly this name
  void add_layer(std::shared_ptr<Layer> layer) const;  ///< registers under this scope's name
  void add_block(const std::shared_ptr<BlockState>& block) const;  ///< the same, and names it so
  const WeightOptions& options() const;
  std::string name() const;  ///< of this scope, dotted; "" = the whole network

  /// Closes loading: throws Error(mismatch) that names tensors of the store which no layer asked
  /// for (a checkpoint of another model), and returns the index.
  ModuleIndex finish() const;

 private:
  struct State;
  WeightSource(std::shared_ptr<State> state, std::string prefix)
      : state_(std::move(state)), prefix_(std::move(prefix)) {}
  std::string full_name(std::string_view name) const;
  at::Tensor find(const std::string& full, const Shape& shape, const Init& init) const;
  bool is_narrowed(const std::string& full, const Shape& shape) const;
  StoredWeight narrowed(const Shape& shape, const Init& init, bool transposed) const;
  void release_pages(std::size_t read) const;

  std::shared_ptr<State> state_;
  std::string prefix_;  // "" or "a.b."
};

}  // namespace ringlet::nn
