#include "ringlet/adapt/set/adapter_file.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <c10/util/StringUtil.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/adapt/set/adapter_file_format.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/log.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::adapt {
namespace {

constexpr std::size_t kShown = 200;  ///< of a file's texts, in messages

using Shape = std::vector<std::int64_t>;
using BaseShapes = std::map<std::string, Shape>;  // by the layer's full name

/// Reads one adapter file, step by step; each step trusts what the ones before have checked.
class Reader {
 public:
  Reader(const std::filesystem::path& path, const Components& components)
      : where_(path.string()), components_(components), file_(io::SafetensorsFile::open(path)) {}

  LoadedAdapter read() {
    check_format();
    FactorTable factors = read_factors();
    const BaseShapes shapes = read_base_shapes();
    new_layers_ = read_new_layers(shapes);
    const std::vector<Assignment> assignments = with_methods(find_targets(shapes));
    AdapterSet set = build(assignments, std::move(factors), find_tensors(shapes));
    AdapterFileInfo info = read_info();
    fill(set, info.storage);
    check_transforms(set, where_);
    set.set_trainable(false);
    return {std::move(set), std::move(info)};
  }

  std::vector<std::string> layers() const {
    check_format();
    const BaseShapes shapes = read_base_shapes();
    const auto made = read_new_layers(shapes);
    std::vector<std::string> names;
    for (const auto& entry : shapes)
      if (!made.contains(entry.first)) names.push_back(entry.first);
    return names;
  }

 private:
  Error bad(const std::string& what) const { return {ErrorCode::bad_format, where_, what}; }

  const std::string& text(const std::string& key) const {
    const auto found = file_->metadata().find(key);
    if (found == file_->metadata().end()) throw bad("lacks the metadata \"" + key + "\"");
    return found->second;
  }

  std::int64_t whole_number(const std::string& written, const std::string& what) const {
    std::int64_t value = 0;
    const char* const end = written.data() + written.size();
    const auto [next, problem] = std::from_chars(written.data(), end, value);
    if (problem != std::errc() || next != end || value < 1)
      throw bad(what + " is \"" + written.substr(0, kShown) + "\", not a whole number above 0");
    return value;
  }

  Json object(const std::string& key) const {
    Json json = parse_json(text(key), where_ + ": " + key);
    if (!json.is_object()) throw bad("its metadata \"" + key + "\" is not a JSON object");
    return json;
  }

  void check_format() const {
    if (!file_->metadata().contains("ringlet.method"))
      throw Error(ErrorCode::unsupported, where_, "is not a ringlet adapter file",
                  "its metadata has no \"ringlet.method\"");
    const std::int64_t format = whole_number(text("ringlet.format"), "its format");
    if (format > kFormat)
      throw Error(ErrorCode::unsupported, where_,
                  "has format " + std::to_string(format) + "; this ringlet reads up to " +
                      std::to_string(kFormat),
                  "use a newer ringlet");
  }

  Method to_method(const std::string& written) const {
    constexpr std::size_t kLongest = 4096;
    if (written.size() > kLongest)
      throw Error(ErrorCode::unsupported, where_,
                  "its method is a text of " + std::to_string(written.size()) +
                      " characters, more than 16 parts can have");
    try {
      return parse_method(written);
    } catch (const Error& error) {
      throw Error(ErrorCode::unsupported, where_, "its method: " + error.message(), error.hint());
    }
  }

  bool in_model(const std::string& full) const {
    const std::string component = full.substr(0, full.find('.'));
    const std::string name = full.substr(std::min(component.size() + 1, full.size()));
    const auto index = components_.find(component);
    return index != components_.end() &&
           (index->second->layers.contains(name) || index->second->tensors.contains(name));
  }

  /// The model's name of a layer: its text encoders may have the level "text_model." where those
  /// that the file was made for lack it, or the other way round.
  std::string model_name(const std::string& layer) const {
    const std::string other = in_model(layer) ? "" : nn::other_text_spelling(layer);
    return !other.empty() && in_model(other) ? other : layer;
  }

  /// The tensor of a parameter, whose name begins with the model's name of a layer.
  const io::TensorInfo* find_tensor(const std::string& parameter) const {
    const io::TensorInfo* info = file_->find(parameter);
    return info != nullptr ? info : file_->find(nn::other_text_spelling(parameter));
  }

  /// Methods of the layers that have another one than the rest.
  std::map<std::string, Method> read_exceptions() const {
    std::map<std::string, Method> methods;
    if (!file_->metadata().contains("ringlet.layer_methods")) return methods;
    const Json exceptions = object("ringlet.layer_methods");  // must outlive items()
    for (const auto& [layer, method] : exceptions.items()) {
      if (!method.is_string()) throw bad("the method of a layer is not a string");
      methods.emplace(model_name(layer), to_method(method.get<std::string>()));
    }
    return methods;
  }

  std::vector<Assignment> with_methods(const std::vector<Target>& targets) const {
    const Method method = to_method(text("ringlet.method"));
    const std::map<std::string, Method> exceptions = read_exceptions();
    std::vector<Assignment> assignments;
    std::size_t used = 0;
    for (const Target& target : targets) {
      const auto own = exceptions.find(target.full_name());
      used += own != exceptions.end() ? 1 : 0;
      assignments.push_back({target, own != exceptions.end() ? own->second : method});
    }
    if (used != exceptions.size()) throw bad("has a method for a layer that it does not change");
    return assignments;
  }

  AdapterSet build(const std::vector<Assignment>& assignments, FactorTable factors,
                   const std::vector<TensorTarget>& tensors) const {
    try {
      check_size(assignments, factors);
      return AdapterSet::create(assignments, std::move(factors), Random(0), true, tensors);
    } catch (const Error& error) {
      // What a method cannot be on a layer is an argument of the file's.
      if (error.code() != ErrorCode::invalid_argument && error.code() != ErrorCode::unsupported)
        throw;
      throw Error(error.code() == ErrorCode::unsupported ? error.code() : ErrorCode::bad_format,
                  where_, error.where() + " " + error.message(), error.hint());
    }
  }

  FactorTable read_factors() const {
    constexpr std::int64_t kMostModes = 8;
    const std::int64_t modes = whole_number(text("ringlet.modes"), "its number of modes");
    if (modes > kMostModes) throw bad("has " + std::to_string(modes) + " modes, more than 8");
    FactorTable table(static_cast<int>(modes));
    const Json factors = object("ringlet.factors");  // must outlive items()
    for (const auto& [n, split] : factors.items()) {
      const std::int64_t dimension = whole_number(n, "a dimension among its factors");
      if (!split.is_string() || split.get_ref<const std::string&>().size() > kShown)
        throw bad("its factors of " + n + " are not a string, or too long");
      try {
        table.set(dimension, parse_factors(split.get<std::string>()));
      } catch (const Error& error) {
        throw bad("its factors: " + error.message());
      }
    }
    return table;
  }

  BaseShapes read_base_shapes() const {
    constexpr std::size_t kLongestName = 1024, kMostAxes = 4;
    const std::string where = where_ + ": ringlet.base_shapes";
    BaseShapes shapes;
    const Json json = object("ringlet.base_shapes");
    for (const auto& item : json.items()) {
      if (item.key().size() > kLongestName)
        throw bad("has a layer name of " + std::to_string(item.key().size()) + " characters");
      if (item.value().size() > kMostAxes)
        throw bad("layer \"" + item.key() + "\" has a shape of " +
                  std::to_string(item.value().size()) + " numbers, which no layer has");
      Shape shape = json_require<Shape>(json, item.key().c_str(), where);
      const bool layer = shape.size() == 2 || shape.size() == 4 || is_small(shape);
      if (!layer || std::ranges::any_of(shape, [](std::int64_t n) { return n < 1; }))
        throw bad("layer \"" + item.key() + "\" has shape " + item.value().dump() +
                  ", which no layer has");
      if (!shapes.emplace(model_name(item.key()), std::move(shape)).second)
        throw bad("names layer \"" + item.key() + "\" twice, with and without \"text_model\"");
    }
    if (shapes.empty()) throw bad("names no layer");
    return shapes;
  }

  /// Layers that the base lacks.
  std::map<std::string, std::string> read_new_layers(const BaseShapes& shapes) const {
    std::map<std::string, std::string> layers;
    if (!file_->metadata().contains("ringlet.new_layers")) return layers;
    const Json json = object("ringlet.new_layers");
    for (const auto& [layer, start] : json.items()) {
      const auto shape = shapes.find(layer);
      if (!start.is_string() || shape == shapes.end() || shape->second.size() != 2)
        throw bad("has a new layer \"" + layer.substr(0, kShown) + "\" that it does not change");
      layers.emplace(layer, start.get<std::string>());
    }
    return layers;
  }

  Error wrong_base(const std::string& what) const {
    const std::string kind = base_kind();
    return {ErrorCode::mismatch, where_, what,
            "the adapter was made for " + (kind.empty() ? "another kind of base model" : kind)};
  }

  /// The networks' layers that the file names.
  std::vector<Target> find_targets(const BaseShapes& shapes) const {
    std::vector<Target> targets;
    for (const auto& [layer, shape] : shapes)
      if (!is_small(shape)) targets.push_back(find_target(layer, shape));
    return targets;
  }

  /// A norm's tensor, not a layer.
  static bool is_small(const Shape& shape) { return shape.size() == 1; }

  std::vector<TensorTarget> find_tensors(const BaseShapes& shapes) const {
    std::vector<TensorTarget> targets;
    for (const auto& [full, shape] : shapes) {
      if (!is_small(shape)) continue;
      const std::string component = full.substr(0, full.find('.'));
      const std::string name = full.substr(std::min(component.size() + 1, full.size()));
      const auto index = components_.find(component);
      if (index != components_.end() && index->second->layers.contains(name))
        throw bad("layer \"" + full + "\" has shape " + c10::str(at::IntArrayRef(shape)) +
                  ", which no layer has");
      if (index == components_.end() || !index->second->tensors.contains(name))
        throw wrong_base("changes the tensor \"" + full + "\", which the model does not have");
      const at::Tensor& tensor = index->second->tensors.at(name);
      if (tensor.sizes() != at::IntArrayRef(shape))
        throw wrong_base("tensor \"" + full + "\" has shape " + c10::str(at::IntArrayRef(shape)) +
                         " in the file, " + c10::str(tensor.sizes()) + " in the model");
      targets.push_back({component, name, tensor, index->second->slots});
    }
    return targets;
  }

  Target find_target(const std::string& layer, at::IntArrayRef shape) const {
    const std::string component = layer.substr(0, layer.find('.'));
    const std::string name = layer.substr(std::min(component.size() + 1, layer.size()));
    const std::string changes = "changes layer \"" + layer + "\" of shape " + c10::str(shape);
    const auto index = components_.find(component);
    if (index == components_.end())
      throw wrong_base(changes + ", but the model has no \"" + component + "\"");
    if (const auto start = new_layers_.find(layer); start != new_layers_.end())
      return {component, name, made_layer(start->second, shape)};
    const auto found = index->second->layers.find(name);
    if (found == index->second->layers.end())
      throw wrong_base(changes + ", which the model does not have");
    const at::IntArrayRef in_model = found->second->shape();
    if (in_model != shape)
      throw wrong_base("layer \"" + layer + "\" has shape " + c10::str(shape) + " in the file, " +
                       c10::str(in_model) + " in the model");
    return {component, name, found->second};
  }

  /// No larger than the file, which holds a number for each of its own.
  std::shared_ptr<nn::Layer> made_layer(const std::string& start, at::IntArrayRef shape) const {
    std::int64_t available = 0;
    for (const io::TensorInfo& info : file_->tensors()) available += info.elements();
    if (shape[0] > available || shape[1] > available / shape[0])
      throw bad("holds " + std::to_string(available) + " numbers, fewer than its new layer of " +
                c10::str(shape));
    return nn::made_linear_layer(start, shape[1], shape[0]);
  }

  /// Refuses methods that need more numbers than the file has before anything is allocated.
  void check_size(const std::vector<Assignment>& assignments, FactorTable& factors) const {
    std::int64_t available = 0, needed = 0;
    for (const io::TensorInfo& info : file_->tensors()) available += info.elements();
    for (const auto& [target, method] : assignments) {
      const LayerShape shape = LayerShape::of(target.layer->shape());
      check_ranks(method, shape);
      needed += parameter_count(method, shape, factors);
      if (needed > available)
        throw bad("holds " + std::to_string(available) + " numbers, fewer than " +
                  method_text(method) + " needs on its layers");
    }
  }

  /// The formulas for the numbers of parameters, which grow with the squares of ranks and factors
  /// and with the products of splits, must not overflow.
  void check_ranks(const Method& method, const LayerShape& shape) const {
    constexpr double kMost = 4e18;
    const double width = 4.0 * static_cast<double>(std::max(shape.in, shape.out));
    for (const PartSpec& part : method.parts) {
      for (const OptionEntry& option : find_part(part.name).options) {
        if (option.kind == OptionKind::split)
          for (const std::int64_t factor : part.factors(option.name))
            if (factor > std::max(shape.out, shape.patch()))
              throw bad("its method " + method_text(method) + " is too large for its layers");
        if (option.kind != OptionKind::positive_integer) continue;
        const double rank = part.number(option.name) * width;
        if (rank * rank * static_cast<double>(shape.positions()) > kMost)
          throw bad("its method " + method_text(method) + " is too large for its layers");
      }
    }
  }

  std::string base_kind() const {
    const auto kind = file_->metadata().find("ringlet.base_kind");
    return kind == file_->metadata().end() ? "" : kind->second;
  }

  AdapterFileInfo read_info() const {
    AdapterFileInfo info;
    for (const auto& [key, value] : file_->metadata())
      if (!key.starts_with(kPrefix)) info.extra.emplace(key, value);
    info.base_hash = text("ringlet.base_hash");
    info.base_kind = base_kind();
    info.training = text("ringlet.training");
    info.new_layers = new_layers_;
    const auto config = file_->metadata().find("ringlet.config");
    if (config != file_->metadata().end()) info.network_config = config->second;
    if (has_control()) read_control(info);
    const auto first = std::ranges::find_if(file_->tensors(), [](const io::TensorInfo& tensor) {
      return !tensor.name.starts_with(kControl);
    });
    if (first != file_->tensors().end())
      info.storage = io::view_tensor(file_, *first).scalar_type();
    return info;
  }

  bool has_control() const { return file_->metadata().contains("ringlet.control"); }

  void read_control(AdapterFileInfo& info) const {
    info.control = text("ringlet.control");
    object("ringlet.control");
    for (const io::TensorInfo& tensor : file_->tensors()) {
      if (!tensor.name.starts_with(kControl)) continue;
      const at::Tensor stored = io::view_tensor(file_, tensor);
      if (!is_storage_type(stored.scalar_type()) || !is_finite(stored))
        throw bad("tensor \"" + tensor.name.substr(0, kShown) +
                  "\" holds values that are not finite");
      info.control_tensors.emplace(tensor.name.substr(kControl.size()), stored.to(at::kFloat));
    }
    if (info.control_tensors.empty()) throw bad("names a control encoder but does not contain it");
  }

  void fill(const AdapterSet& set, at::ScalarType storage) const {
    if (!is_storage_type(storage))
      throw bad(std::string("its numbers have type ") + at::toString(storage) +
                "; adapters have F32, F16 or BF16");
    const at::NoGradGuard no_grad;
    const Parameters parameters = set.stored();
    std::vector<std::string> known;
    for (const auto& [name, parameter] : parameters) {
      const io::TensorInfo* info = find_tensor(name);
      if (info == nullptr) throw bad("tensor \"" + name + "\" is missing");
      const at::Tensor stored = io::view_tensor(file_, *info);
      if (stored.sizes() != parameter.sizes())
        throw bad("tensor \"" + name + "\" has shape " + c10::str(stored.sizes()) + " instead of " +
                  c10::str(parameter.sizes()));
      if (stored.scalar_type() != storage)
        throw bad("tensor \"" + name + "\" has another type than the first");
      if (!is_finite(stored))
        throw Error(ErrorCode::non_finite, where_,
                    "tensor \"" + name + "\" holds a NaN or an infinity",
                    "the file is damaged, or its training diverged");
      parameter.copy_(stored);
      known.push_back(info->name);
    }
    check_no_more(std::move(known));
  }

  void check_no_more(std::vector<std::string> known) const {
    std::ranges::sort(known);
    for (const io::TensorInfo& info : file_->tensors())
      if (!std::ranges::binary_search(known, info.name) &&
          !(has_control() && info.name.starts_with(kControl)))
        throw bad("tensor \"" + info.name.substr(0, kShown) + "\" belongs to none of its layers");
  }

  std::string where_;
  const Components& components_;
  std::shared_ptr<const io::SafetensorsFile> file_;
  std::map<std::string, std::string> new_layers_;
};

}  // namespace

std::vector<std::string> adapted_layers(const std::filesystem::path& path) {
  static const Components kNone;
  return nn::with_ringlet_errors(path.string(), [&] { return Reader(path, kNone).layers(); });
}

LoadedAdapter load_adapter(const std::filesystem::path& path, const Components& components,
                           const std::string& expected_base_hash) {
  return nn::with_ringlet_errors(path.string(), [&] {
    LoadedAdapter loaded = Reader(path, components).read();
    const std::string& hash = loaded.info.base_hash;
    if (!hash.empty() && !expected_base_hash.empty() && hash != expected_base_hash)
      log(LogLevel::warning, path.string() + ": was made for another base model (" + hash +
                                 ", this one is " + expected_base_hash +
                                 "); pictures will differ from those of its training");
    return loaded;
  });
}

}  // namespace ringlet::adapt
