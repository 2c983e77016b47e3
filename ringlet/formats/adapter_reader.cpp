#include "ringlet/formats/adapter_reader.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <c10/util/StringUtil.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/parts/vera.h"
#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/layer_reader.h"
#include "ringlet/formats/unread_adapter.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPeftConfig = "adapter_config.json";
constexpr const char* kPeftWeights = "adapter_model.safetensors";

/// A stored tensor for a parameter: the same numbers, perhaps with other axes of size 1 or with a
/// kernel laid flat.
bool fits(at::IntArrayRef stored, at::IntArrayRef wanted) {
  const auto squeezed = [](at::IntArrayRef sizes) {
    std::vector<std::int64_t> kept;
    for (const std::int64_t size : sizes)
      if (size != 1) kept.push_back(size);
    return kept;
  };
  if (squeezed(stored) == squeezed(wanted)) return true;
  return stored.size() == 2 && !wanted.empty() && stored[0] == wanted[0] &&
         c10::multiply_integers(stored) == c10::multiply_integers(wanted);
}

/// The file's tensor type where all have the same that adapters may be stored in, else fp32.
at::ScalarType common_type(const AdapterTensors& tensors) {
  std::optional<at::ScalarType> type;
  for (const LayerTensors& layer : tensors.layers)
    for (const auto& [what, tensor] : layer.tensors) {
      if (is_setting(what)) continue;
      if (type && *type != tensor.scalar_type()) return at::kFloat;
      type = tensor.scalar_type();
    }
  const bool narrow = type && (*type == at::kHalf || *type == at::kBFloat16);
  return narrow ? *type : at::kFloat;
}

/// One component's or a whole file's adapters, step by step.
class ForeignReader {
 public:
  ForeignReader(const adapt::Components& components, const ModuleNames& names)
      : components_(components), names_(names) {}

  /// `component` is known for PEFT's folders; `config` may be missing for the other programs.
  void add(const fs::path& file, const std::string& component,
           const std::optional<PeftConfig>& config) {
    const auto opened = io::SafetensorsFile::open(file);
    const TransformerFamily family = names_.family();
    if (components_.contains("unet")) refuse_other_family(*opened, kUNet);
    if (family != TransformerFamily::none) refuse_other_family(*opened, name_of(family));
    AdapterTensors tensors = sort_tensors(opened);
    const auto uses = [&](Naming naming) {
      return std::ranges::find(tensors.layers, naming, &LayerTensors::naming) !=
             tensors.layers.end();
    };
    summary_.dialect = tensors.dialect();
    if (uses(Naming::peft) && !config && family != TransformerFamily::none &&
        file.filename() != kPeftWeights)
      read_without_configuration(tensors);
    if (uses(Naming::peft) && !config)
      throw Error(ErrorCode::not_found, (file.parent_path() / kPeftConfig).string(),
                  "is missing, and with it the scale of this PEFT adapter",
                  "keep " + std::string(kPeftConfig) + " beside " + kPeftWeights);
    storage_ = common_type(tensors);
    for (const auto& [key, value] : opened->metadata())
      if (!key.starts_with("ringlet.") && key != "format") metadata_.emplace(key, value);
    const std::map<std::string, PeftConfig> saved = diffusers_metadata(*opened);
    if (uses(Naming::cloneofsimo)) check_classes(*opened);
    if (!tensors.projections.empty()) projections_[component] = tensors.projections;
    for (const LayerTensors& layer : tensors.layers)
      add_layer(layer, component, config, saved, *opened);
    unread_.endings.insert(unread_.endings.end(), tensors.unknown.begin(), tensors.unknown.end());
    if (!tensors.embeddings.empty())
      decisions_.insert("the file's textual-inversion embeddings are read by `embedding`: \"" +
                        shown(join(tensors.embeddings)) + "\"");
  }

  ReadAdapter build(const fs::path& path) {
    if (unread_.any()) throw not_understood(path, unread_);
    if (assignments_.empty() && norms_.empty())
      throw Error(ErrorCode::bad_format, path.string(), "changes no layer",
                  "is it an adapter? `embedding` reads files of embeddings");
    adapt::AdapterSet set =
        adapt::AdapterSet::create(assignments_, adapt::FactorTable(), Random(0), true, norms_);
    check_projections();
    fill(set);
    adapt::check_transforms(set, path.string());
    set.set_trainable(false);
    for (const auto& entry : set.entries()) ++summary_.methods[entry.adapter->spec()];
    if (!norms_.empty()) summary_.methods["differences of norms"] = static_cast<int>(norms_.size());
    summary_.decisions.assign(decisions_.begin(), decisions_.end());
    adapt::AdapterFileInfo info;
    info.extra = std::move(metadata_);
    info.storage = storage_;
    return {std::move(set), std::move(info), std::move(summary_), std::move(file_names_)};
  }

 private:
  /// diffusers' metadata: a PEFT configuration per component, its keys behind "unet."; or, as
  /// save_lora_adapter writes it, one of the file's only network, whose keys have no dot.
  std::map<std::string, PeftConfig> diffusers_metadata(const io::SafetensorsFile& file) const {
    const auto found = file.metadata().find("lora_adapter_metadata");
    if (found == file.metadata().end()) return {};
    const std::string where = file.path().string() + ": lora_adapter_metadata";
    const OrderedJson all = parse_ordered_json(found->second, where);
    if (!all.is_object()) throw Error(ErrorCode::bad_format, where, "is not a JSON object");
    std::map<std::string, OrderedJson> parts;
    for (const auto& [key, value] : all.items()) {
      const std::size_t dot = key.find('.');
      const bool bare = dot == std::string::npos;
      parts[bare ? "" : key.substr(0, dot)][bare ? key : key.substr(dot + 1)] = value;
    }
    if (parts.contains("") && parts.size() > 1)
      throw Error(ErrorCode::unsupported, where,
                  "its field \"" + shown(parts.at("").begin().key()) + "\" is not a component's",
                  "the names of its fields start with a component, as \"unet.r\" does");
    std::map<std::string, PeftConfig> configs;
    for (auto& [component, fields] : parts) {
      // diffusers fills the factors in after it has started them, so that a start is no more.
      fields.erase("init_lora_weights");
      configs.emplace(component, PeftConfig(fields, where));
    }
    return configs;
  }

  /// Files of LoRA alone for transformers are passed on under PEFT's names without a configuration;
  /// diffusers and ComfyUI read them with scale 1.
  void read_without_configuration(AdapterTensors& tensors) {
    const auto is_lora = [](const LayerTensors& layer) {
      return std::ranges::all_of(layer.tensors, [](const auto& tensor) {
        return tensor.first == "down" || tensor.first == "up" || tensor.first == "up_bias";
      });
    };
    for (LayerTensors& layer : tensors.layers)
      if (layer.naming == Naming::peft && is_lora(layer)) layer.naming = Naming::diffusers;
    decisions_.insert("no configuration beside PEFT's names: LoRA of scale 1");
  }

  /// The path of a layer in the network of the program that wrote the file, for the patterns of its
  /// configuration.
  static std::string path_in_file(const std::string& prefix, const ModuleName& module) {
    for (const std::string& before : {std::string("base_model.model."), module.component + "."})
      if (prefix.starts_with(before)) return prefix.substr(before.size());
    return module.path;
  }

  void add_layer(const LayerTensors& layer, const std::string& component,
                 const std::optional<PeftConfig>& config,
                 const std::map<std::string, PeftConfig>& saved, const io::SafetensorsFile& file) {
    if (const FusedLayer* const fused = names_.find_fused(layer.prefix)) {
      ++unread_.fitting;
      const bool stated = layer.naming == Naming::peft || config || !saved.empty();
      for (std::size_t i = 0; i < fused->pieces.size(); ++i)
        add_module(piece_of(layer, *fused, i, stated), fused->pieces[i].module, config, saved, file,
                   /*of_fused=*/true);
      if (fused->pieces.size() > 1)
        decisions_.insert(
            "a layer of the original layout that is several layers here (queries, keys and values) "
            "is divided by its rows");
      return;
    }
    const std::optional<ModuleName> module = names_.find(layer.prefix, component);
    if (!module) {
      unread_.layers.push_back(layer.telling_name());
      return;
    }
    ++unread_.fitting;
    add_module(layer, *module, config, saved, file, /*of_fused=*/false);
  }

  void add_module(const LayerTensors& layer, const ModuleName& module,
                  const std::optional<PeftConfig>& config,
                  const std::map<std::string, PeftConfig>& saved, const io::SafetensorsFile& file,
                  bool of_fused) {
    const auto [seen, is_new] = seen_.emplace(module, layer.prefix);
    if (!is_new)
      throw Error(ErrorCode::bad_format, file.path().string(),
                  "has the same layer twice: \"" + seen->second + "\" and \"" + layer.prefix + "\"",
                  "the file was put together wrongly");
    const auto& layers = components_.at(module.component)->layers;
    const bool of_norms = std::ranges::all_of(layer.tensors, [](const auto& tensor) {
      return tensor.first == "w_norm" || tensor.first == "b_norm";
    });
    if (of_norms || !layers.contains(module.path)) return add_norm(layer, module);
    const auto& target = layers.at(module.path);
    const auto own = saved.contains("") ? saved.find("") : saved.find(module.component);
    const auto network = file.metadata().find("ss_network_module");
    // The limit of a fused layer's rotations, its alpha, is in the numbers of its pieces.
    const bool kohya_oft =
        layer.prefix.starts_with("oft_unet_") ||
        (network != file.metadata().end() && network->second.starts_with("networks.oft"));
    const ReadingContext context{layer.naming, path_in_file(layer.prefix, module), target.get(),
                                 config               ? &*config
                                 : own != saved.end() ? &own->second
                                                      : nullptr,
                                 kohya_oft && (!of_fused || layer.has("alpha"))};
    LayerReading reading = read_layer(layer, context, decisions_);
    assignments_.push_back({{module.component, module.path, target}, reading.method});
    check_size(assignments_.back(), reading, layer.prefix);
    const std::string full = module.component + "." + module.path + ".";
    for (auto& [name, tensor] : reading.tensors) numbers_.emplace(full + name, std::move(tensor));
    for (auto& [name, in_file] : reading.names)
      file_names_.emplace(full + name, std::move(in_file));
  }

  /// cloneofsimo numbers the layers of the classes that its metadata lists.
  static void check_classes(const io::SafetensorsFile& file) {
    for (const char* component : {"unet", "text_encoder"}) {
      const auto listed = file.metadata().find(component);
      if (listed == file.metadata().end()) continue;
      const std::string where = file.path().string() + ": " + component;
      const Json names = parse_json(listed->second, where);
      std::set<std::string> classes;
      for (const Json& name : names)
        if (name.is_string()) classes.insert(name.get<std::string>());
      const std::vector<std::string> known = cloneofsimo_classes(component);
      if (classes != std::set<std::string>(known.begin(), known.end()))
        throw Error(ErrorCode::unsupported, where,
                    "numbers the layers of classes other than " + join(known),
                    "convert the file with the program that made it");
    }
  }

  /// VeRA's matrices, where a file holds them, must be those that its seed gives.
  void check_projections() const {
    for (const auto& [component, stored] : projections_) check_projections(component, stored);
  }

  void check_projections(const std::string& component,
                         const std::map<std::string, at::Tensor>& stored) const {
    const auto a = stored.find("base_model.vera_A"), b = stored.find("base_model.vera_B");
    adapt::VeraOptions options;
    for (const adapt::Assignment& one : assignments_) {
      const adapt::PartSpec& part = one.method.parts.front();
      if (part.name != "vera" || (!component.empty() && one.target.component != component))
        continue;
      options.rank = part.integer("rank");
      options.seed = static_cast<std::uint64_t>(part.integer("seed"));
      const auto shape = adapt::LayerShape::of(one.target.layer->shape());
      options.widest_in = std::max(options.widest_in, shape.patch());
      options.widest_out = std::max(options.widest_out, shape.out);
    }
    if (options.widest_in == 0)
      throw Error(ErrorCode::bad_format, "base_model.vera_A", "is in a file without VeRA layers",
                  "the file is damaged");
    const auto equal = [](const at::Tensor& saved, const at::Tensor& expected) {
      return is_factor_type(saved.scalar_type()) && saved.sizes() == expected.sizes() &&
             at::equal(saved, expected.to(saved.scalar_type()));
    };
    const auto [expected_a, expected_b] = adapt::vera_matrices(options);
    if (a == stored.end() || b == stored.end() || !equal(a->second, expected_a) ||
        !equal(b->second, expected_b))
      throw Error(ErrorCode::unsupported, "base_model.vera_A",
                  "and vera_B are not the matrices that the adapter's seed gives",
                  "merge the adapter with PEFT and use the merged model");
  }

  /// Refuses what would be much larger than the file and the layer, before it is built. Smaller
  /// differences show in the shapes.
  static void check_size(const adapt::Assignment& one, const LayerReading& reading,
                         const std::string& prefix) {
    const at::Tensor& weight = one.target.layer->weight();
    std::int64_t available = 0;
    for (const auto& [name, tensor] : reading.tensors) available += tensor.numel();
    adapt::FactorTable factors;
    const std::int64_t needed =
        adapt::parameter_count(one.method, adapt::LayerShape::of(weight), factors);
    if (needed > available + weight.numel())
      throw Error(ErrorCode::mismatch, prefix,
                  "holds " + std::to_string(available) + " numbers, fewer than " +
                      adapt::method_text(one.method) + " needs on the model's layer",
                  "the adapter was made for another model, or is damaged");
  }

  /// Differences of a norm's scale and offset: LyCORIS's w_norm and b_norm, ComfyUI's diff and
  /// diff_b, or its set_weight, the scale itself.
  void add_norm(const LayerTensors& layer, const ModuleName& module) {
    const nn::ModuleIndex& index = *components_.at(module.component);
    for (const auto& [what, tensor] : layer.tensors) {
      const std::string& in_file = layer.names.at(what);
      const bool offset = what == "b_norm" || what == "diff_b";
      if (!offset && what != "w_norm" && what != "diff" && what != "set_weight")
        throw Error(ErrorCode::bad_format, in_file, "does not belong to a norm",
                    "a norm has no matrix that a method could change");
      const std::string name = module.path + (offset ? ".bias" : ".weight");
      const auto found = index.tensors.find(name);
      if (found == index.tensors.end() || found->second.dim() != 1 ||
          found->second.numel() != tensor.numel())
        throw Error(ErrorCode::mismatch, in_file, "does not fit the model's norm",
                    "the adapter was made for another model");
      if (!is_factor_type(tensor.scalar_type()) || !tensor.isfinite().all().item<bool>())
        throw Error(ErrorCode::non_finite, in_file, "holds values that are not finite numbers");
      norms_.push_back({module.component, name, found->second, index.slots});
      const std::string full = norms_.back().full_name() + ".difference";
      const bool whole = what == "set_weight";
      if (!numbers_
               .emplace(full,
                        whole ? tensor.to(at::kFloat) - found->second.to(at::kFloat).cpu() : tensor)
               .second)
        throw Error(ErrorCode::bad_format, in_file,
                    "changes the same parameter as another tensor of its norm",
                    "the file was put together wrongly");
      file_names_.emplace(full, in_file);
    }
  }

  void fill(const adapt::AdapterSet& set) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, parameter] : set.stored()) {
      const auto found = numbers_.find(name);
      if (found == numbers_.end())
        throw Error(ErrorCode::bad_format, name, "has no numbers in the file",
                    "the file is incomplete; download it again");
      const at::Tensor& stored = found->second;
      if (!fits(stored.sizes(), parameter.sizes())) {
        throw Error(ErrorCode::mismatch, in_file(name),
                    "has shape " + c10::str(stored.sizes()) + ", the model's layer needs " +
                        c10::str(parameter.sizes()),
                    "the adapter was made for a model of another size");
      }
      parameter.copy_(stored.reshape(parameter.sizes()));
      if (!parameter.isfinite().all().item<bool>())
        throw Error(ErrorCode::non_finite, in_file(name), "has numbers that are too large for fp32",
                    "the file is damaged, or its training diverged");
      numbers_.erase(found);
    }
    if (!numbers_.empty())
      throw Error(ErrorCode::bad_format, in_file(numbers_.begin()->first),
                  "is not used by its layer's method",
                  "the file is damaged, or of an unsupported method");
  }

  /// How the file calls a parameter, for messages.
  const std::string& in_file(const std::string& name) const {
    const auto found = file_names_.find(name);
    return found != file_names_.end() ? found->second : name;
  }

  const adapt::Components& components_;
  const ModuleNames& names_;
  std::vector<adapt::Assignment> assignments_;
  std::vector<adapt::TensorTarget> norms_;
  std::map<std::string, at::Tensor> numbers_;  // by ringlet's full parameter names
  std::map<std::string, std::string> file_names_;
  std::map<ModuleName, std::string> seen_;  // layers by how the file calls them
  std::map<std::string, std::map<std::string, at::Tensor>> projections_;  // by component
  std::set<std::string> decisions_;
  UnreadTensors unread_;
  io::Metadata metadata_;
  at::ScalarType storage_ = at::kFloat;
  AdapterSummary summary_;
};

PeftConfig read_config(const fs::path& folder) {
  const fs::path file = folder / kPeftConfig;
  return {parse_ordered_json(read_file(file), file.string()), file.string()};
}

ReadAdapter read_own(const fs::path& path, const adapt::Components& components,
                     const std::string& expected_base_hash) {
  adapt::LoadedAdapter loaded = adapt::load_adapter(path, components, expected_base_hash);
  AdapterSummary summary{"ringlet", {}, {}};
  for (const auto& entry : loaded.set.entries()) ++summary.methods[entry.adapter->spec()];
  return {std::move(loaded.set), std::move(loaded.info), std::move(summary), {}};
}

ReadAdapter read_folder(const fs::path& folder, ForeignReader& reader,
                        const adapt::Components& components) {
  if (fs::exists(folder / kPeftConfig)) {
    reader.add(folder / kPeftWeights, "", read_config(folder));
    return reader.build(folder);
  }
  bool any = false;
  for (const auto& [component, index] : components)
    if (const fs::path own = folder / component; fs::exists(own / kPeftConfig)) {
      reader.add(own / kPeftWeights, component, read_config(own));
      any = true;
    }
  if (!any)
    throw Error(
        ErrorCode::not_found, (folder / kPeftConfig).string(), "does not exist",
        "a folder is read as a PEFT adapter; for other formats, give the .safetensors file");
  return reader.build(folder);
}

}  // namespace

ReadAdapter read_adapter(const fs::path& path, const adapt::Components& components,
                         const std::string& expected_base_hash) {
  return nn::with_ringlet_errors(path.string(), [&] {
    const bool folder = fs::is_directory(path);
    if (!folder && io::SafetensorsFile::open(path)->metadata().contains("ringlet.method"))
      return read_own(path, components, expected_base_hash);
    const ModuleNames names(components);
    ForeignReader reader(components, names);
    if (folder) return read_folder(path, reader, components);
    std::optional<PeftConfig> config;
    if (fs::exists(path.parent_path() / kPeftConfig) && path.filename() == kPeftWeights)
      config = read_config(path.parent_path());
    reader.add(path, "", config);
    return reader.build(path);
  });
}

}  // namespace ringlet::formats
