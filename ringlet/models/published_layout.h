// The layouts in which one kind of network is published: with and without the level that classes
// with a head put before the network's names, under older names, and with tensors of heads and
// buffers that the network itself does not have.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// The kind of network that a config.json describes: "model_type", which files of 2019 and 2020
/// lack; then what "architectures" begin with ("BertForMaskedLM" is a bert), timm's "architecture"
/// or fields that one kind alone has. "" where nothing says it.
std::string network_type(const Json& config);

/// The same. Throws Error(bad_format) where nothing says it.
std::string required_network_type(const Json& config, const std::string& where);

/// How one file names the tensors of its network, and what else it holds. Three names for one
/// tensor: the file's, the class's (transformers' class with a head, torchvision's for files of its
/// own: what adapters are named by) and the network's (what the constructors in models/ ask for;
/// only ResNet's differ from the class's).
class PublishedLayout {
 public:
  /// `kind` is a model_type; `names` are a file's, or empty for a network that begins at random,
  /// whose class `config` may tell. Kinds without a table keep their names.
  PublishedLayout(const std::string& kind, const std::vector<std::string>& names,
                  const Json& config = Json::object());

  std::string network_name(const std::string& in_file) const;
  std::string class_name(const std::string& in_file) const;

  /// The class's name for a name of the network, which the file need not hold.
  std::string class_of(const std::string& network_name) const;

  /// The class's name without the level: transformers' class of the network alone.
  std::string bare_name(const std::string& class_name) const;

  /// What a layer of the network is called in the class, or without the class's level.
  std::string layer_name(const std::string& network_layer, bool bare = false) const;

  /// Whether tensors of this network name belong to published heads or are buffers without
  /// information: left out where a network does not ask for them.
  bool is_left_out(const std::string& network_name) const;

  /// The index with the class's names in place of the network's, or those without a level.
  nn::ModuleIndex in_class(const nn::ModuleIndex& index, bool bare = false) const;

  struct Kind;

 private:
  const Kind* kind_ = nullptr;
  bool of_transformers_ = false;     ///< a ResNet under transformers' names
  std::vector<std::string> levels_;  ///< that the file leaves out
};

/// A file's tensors under the network's names, without those that are left out unless they are
/// asked for by name.
class PublishedStore final : public nn::TensorStore {
 public:
  /// Throws Error(bad_format) when two tensors of the file have one name.
  PublishedStore(std::shared_ptr<const nn::TensorStore> file, const PublishedLayout& layout);

  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override;
  std::vector<std::string> names() const override { return names_; }
  std::string description() const override { return file_->description(); }
  void release() const override { file_->release(); }

 private:
  std::shared_ptr<const nn::TensorStore> file_;
  std::map<std::string, std::string> origins_;  ///< the network's names -> the file's
  std::vector<std::string> names_;
};

/// All other names that tensors of a file may go by in adapters and other files of its network, to
/// the file's own: with and without the level, and today's for older ones. The kinds are told by
/// the tensors; files of none have no other names.
std::map<std::string, std::string> other_names(const std::vector<std::string>& in_file);

/// Whether the tensor of a file belongs to a published head or is a buffer, by any kind that the
/// file may be of.
bool is_left_out(const std::string& in_file, const std::vector<std::string>& names);

}  // namespace ringlet::models
