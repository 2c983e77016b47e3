#include "ringlet/formats/adapter_writer.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "ringlet/adapt/parts/oft.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/layer_writer.h"
#include "ringlet/formats/part_format.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;

using Tensors = std::map<std::string, at::Tensor>;

constexpr const char* kStability = "https://github.com/Stability-AI/generative-models";

/// One adapted layer in the program's form.
struct Written {
  ModuleName module;
  const PartFormat* format;  ///< of the leading part
  LayerWriting layer;
  std::string prefix = {};  ///< its name in the file
};

/// A tensor in the file's type. alpha stays as it is, fp32: in fp16 it would be rounded, and with
/// it the scale, or become infinite.
at::Tensor stored(const std::string& what, const at::Tensor& tensor, at::ScalarType storage) {
  const bool keep = what == "alpha" || !at::isFloatingType(tensor.scalar_type());
  return keep ? tensor : tensor.to(storage);
}

class AdapterWriter {
 public:
  AdapterWriter(const adapt::AdapterSet& set, const adapt::AdapterFileInfo& info,
                const adapt::Components& components, const AdapterWriteOptions& options)
      : set_(set),
        info_(info),
        components_(components),
        options_(options),
        names_(components),
        naming_(naming_of(options.format)) {}

  void write(const fs::path& path) {
    if (options_.format == AdapterFormat::diffusers) check_components();
    for (const auto& entry : set_.entries()) collect(entry);
    fuse_pieces();
    if (!set_.tensor_changes().empty() && options_.format != AdapterFormat::lycoris &&
        options_.format != AdapterFormat::comfyui)
      refuse(set_.tensor_changes().front().target.full_name(), "has no form for changes of norms");
    if (options_.format == AdapterFormat::peft) return write_peft(path);
    Tensors tensors;
    for (const Written& one : written_) add_tensors(one, tensors);
    add_norms(tensors);
    if (options_.format == AdapterFormat::diffusers)
      return io::save_tensors(path, tensors, diffusers_metadata());
    if (options_.format == AdapterFormat::comfyui)
      return io::save_tensors(path, tensors, modelspec_metadata());
    write_kohya(path, tensors);
  }

 private:
  void collect(const adapt::AdapterSet::Entry& entry) {
    const adapt::Method& method = entry.adapter->method();
    Written one{{entry.target.component, entry.target.name},
                find_format(leading_part(method).name),
                write_layer(options_.format, *entry.target.layer, *entry.adapter)};
    if (!one.layer.refused.empty()) refuse(entry.target.full_name(), one.layer.refused);
    written_.push_back(std::move(one));
  }

  /// Layers that are one in the format's layout are written as one.
  void fuse_pieces() {
    std::vector<Written> all;
    std::map<const FusedLayer*, std::vector<const Written*>> parts;
    for (Written& one : written_) {
      if (const FusedLayer* const fused = names_.fused_with(naming_, one.module)) {
        parts[fused].push_back(&one);
        continue;
      }
      one.prefix = prefix_of(one.module);
      all.push_back(one);
    }
    for (const auto& [fused, some] : parts) {
      std::vector<const LayerWriting*> pieces(fused->pieces.size());
      for (const Written* one : some)
        for (std::size_t i = 0; i < pieces.size(); ++i)
          if (fused->pieces[i].module == one->module) pieces[i] = &one->layer;
      const Written& first = *some.front();
      Written joined{first.module, first.format, fuse(pieces, *fused),
                     ModuleNames::prefix(naming_, *fused)};
      if (!joined.layer.refused.empty())
        refuse(first.module.component + "." + first.module.path, joined.layer.refused);
      all.push_back(std::move(joined));
    }
    written_ = std::move(all);
  }

  /// diffusers loads adapters into the networks of a text-to-image model, by their names.
  void check_components() const {
    for (const auto& entry : set_.entries())
      if (const std::string& component = entry.target.component;
          component != "unet" && component != "transformer" &&
          !component.starts_with("text_encoder"))
        throw Error(
            ErrorCode::unsupported, entry.target.full_name(),
            "diffusers has no class for this layer's network, so nothing there could load it",
            "use `to=peft`, whose files name the layers of every network");
  }

  [[noreturn]] void refuse(const std::string& layer, const std::string& why) const {
    throw Error(
        ErrorCode::unsupported, layer, std::string(name_of(options_.format)) + " " + why,
        "choose `as=lora` `rank=R` (the nearest low rank, its error is printed), `as=diff` "
        "(full weight differences, for kohya and lycoris), `to=ringlet`, or merge the adapter");
  }

  std::string prefix_of(const ModuleName& module) const {
    const std::string prefix = names_.prefix(naming_, module);
    if (naming_ != Naming::peft) return prefix;
    return prefix.substr(0, prefix.size() - module.path.size()) + path_in_class(module);
  }

  std::string path_in_class(const ModuleName& module) const {
    const auto name = options_.class_names.find(module.component + "." + module.path);
    return name == options_.class_names.end() ? module.path : name->second;
  }

  void add_tensors(const Written& one, Tensors& tensors) const {
    const std::string& prefix = one.prefix;
    for (const auto& [what, tensor] : one.layer.tensors) {
      const at::Tensor finished = stored(what, tensor, info_.storage);
      if (!finished.isfinite().all().item<bool>())
        throw Error(ErrorCode::non_finite, prefix + ending(naming_, what),
                    "holds numbers that are not finite as stored", "store fp32 or bf16");
      tensors.emplace(prefix + ending(naming_, what), finished);
    }
  }

  void add_norms(Tensors& tensors) const {
    for (const auto& [target, difference] : set_.tensor_changes()) {
      const std::size_t dot = target.name.rfind('.');
      const char* what = target.name.substr(dot) == ".bias" ? "b_norm" : "w_norm";
      tensors.emplace(names_.prefix(naming_, {target.component, target.name.substr(0, dot)}) +
                          ending(naming_, what),
                      stored(what, difference, info_.storage));
    }
  }

  /// The rank or alpha that most layers have.
  static double most_common(const std::vector<const Written*>& layers, double LayerWriting::*what) {
    if (layers.empty()) return 0.0;
    std::map<double, int> counts;
    for (const Written* one : layers) ++counts[one->layer.*what];
    return std::ranges::max_element(counts, {}, &std::pair<const double, int>::second)->first;
  }

  /// A layer's path for PEFT's lists, which compare ends. transformers 5 leaves the "text_model."
  /// of older versions out.
  std::string listed(const ModuleName& module) const {
    const bool text = module.component.starts_with("text_encoder");
    return text ? nn::without_text_model_level(module.path) : path_in_class(module);
  }

  /// The same as a regular expression, for rank_pattern and alpha_pattern.
  std::string exactly(const ModuleName& module) const {
    const std::string path = listed(module);
    std::string pattern = path == module.path ? "^" : "";
    for (const char c : path) pattern += c == '.' ? "\\." : std::string(1, c);
    return pattern + "$";
  }

  static Json as_number(double value) {
    constexpr double kExact = 9007199254740992.0;  // 2^53
    const bool whole = std::abs(value) <= kExact && value == std::floor(value);
    return whole ? Json(static_cast<std::int64_t>(value)) : Json(value);
  }

  /// r and alpha with their exceptions.
  void add_ranks(const std::vector<const Written*>& layers, const char* alpha_field,
                 Json& config) const {
    const double rank = most_common(layers, &LayerWriting::rank);
    const double alpha = most_common(layers, &LayerWriting::alpha);
    if (rank == 0.0) return;
    config["r"] = as_number(rank);
    config[alpha_field] = as_number(alpha);
    config["rank_pattern"] = config["alpha_pattern"] = Json::object();
    for (const Written* one : layers) {
      const std::string key = exactly(one->module);
      if (one->layer.rank != rank) config["rank_pattern"][key] = as_number(one->layer.rank);
      if (one->layer.alpha != alpha) config["alpha_pattern"][key] = as_number(one->layer.alpha);
    }
  }

  std::map<std::string, std::vector<const Written*>> by_component() const {
    std::map<std::string, std::vector<const Written*>> parts;
    for (const Written& one : written_) parts[one.module.component].push_back(&one);
    return parts;
  }

  /// The fields that all layers must have alike.
  Json common_config(const std::vector<const Written*>& layers) const {
    const PartFormat& format = *layers.front()->format;
    Json config = Json::object();
    Json of_input = Json::array();
    for (const Written* one : layers) {
      if (one->layer.of_input) of_input.push_back(listed(one->module));
      if (one->format != &format)
        refuse(one->module.path, std::string("has one method for all layers, not ") +
                                     one->format->part + " beside " + format.part);
      for (const auto& [field, value] : one->layer.config.items()) {
        if (config.contains(field) && config[field] != value) {
          refuse(one->module.path, "has one \"" + field + "\" for all layers, and they differ");
        } else {
          config[field] = value;
        }
      }
    }
    const PeftForm& peft = format.peft;
    if (peft.input_layers_field != nullptr) config[peft.input_layers_field] = of_input;
    if (peft.block_size_field != nullptr)
      add_blocks(layers, peft.block_size_field, peft.block_number_field, config);
    return config;
  }

  /// PEFT makes each layer's blocks from one size, or one number, of blocks: the nearest divisor of
  /// the layer's inputs. One that gives the blocks that there are.
  void add_blocks(const std::vector<const Written*>& layers, const char* size_field,
                  const char* number_field, Json& config) const {
    std::set<std::pair<std::int64_t, std::int64_t>> shapes;
    std::int64_t widest = 0;
    for (const Written* one : layers) {
      shapes.emplace(one->layer.width, one->layer.block);
      widest = std::max(widest, one->layer.width);
    }
    const auto all = [&](const auto& gives) { return std::ranges::all_of(shapes, gives); };
    for (std::int64_t n = 1; n <= widest; ++n) {
      const bool by_size =
          all([n](const auto& one) { return adapt::nearest_divisor(one.first, n) == one.second; });
      const bool by_number = all([n](const auto& one) {
        return one.first / adapt::nearest_divisor(one.first, n) == one.second;
      });
      if (!by_size && !by_number) continue;
      config[size_field] = by_size ? n : 0;
      config[number_field] = by_size ? 0 : n;
      return;
    }
    refuse(layers.front()->module.path, "has one size or number of blocks for all layers");
  }

  Json peft_config(const std::vector<const Written*>& layers) const {
    const PeftForm& peft = layers.front()->format->peft;
    Json config = common_config(layers);
    add_ranks(layers, peft.alpha_field, config);
    config["peft_type"] = peft.types.front();
    config["task_type"] = nullptr;
    config["base_model_name_or_path"] = nullptr;
    config["inference_mode"] = true;
    if (std::ranges::any_of(layers, [](const Written* one) { return one->layer.fan_in_fan_out; }))
      config["fan_in_fan_out"] = true;
    config["target_modules"] = Json::array();
    for (const Written* one : layers) config["target_modules"].push_back(listed(one->module));
    return config;
  }

  void write_peft(const fs::path& path) const {
    const auto parts = by_component();
    std::map<std::string, std::pair<Json, Tensors>>
        folders;  // all of it before anything is written
    for (const auto& [component, layers] : parts) {
      auto& [config, tensors] = folders[component];
      config = peft_config(layers);
      for (const Written* one : layers) add_tensors(*one, tensors);
    }
    for (const auto& [component, content] : folders) {
      const fs::path folder = parts.size() > 1 ? path / component : path;
      make_folder(folder);
      io::save_tensors(folder / "adapter_model.safetensors", content.second, {{"format", "pt"}});
      write_file_atomically(folder / "adapter_config.json", content.first.dump(2) + "\n");
    }
  }

  io::Metadata diffusers_metadata() const {
    if (options_.metadata == MetadataLevel::none && all_unscaled()) return {{"format", "pt"}};
    Json all = Json::object();
    for (const auto& [component, layers] : by_component()) {
      Json config = common_config(layers);
      add_ranks(layers, "lora_alpha", config);
      config["target_modules"] = Json::array();
      for (const Written* one : layers) config["target_modules"].push_back(listed(one->module));
      for (const Written* one : layers)
        if (one->layer.tensors.contains("magnitude")) config["use_dora"] = true;
      config["bias"] = "none";
      for (const auto& [field, value] : config.items()) all[component + "." + field] = value;
    }
    return {{"format", "pt"}, {"lora_adapter_metadata", all.dump(2)}};
  }

  bool all_unscaled() const {
    return std::ranges::all_of(
        written_, [](const Written& one) { return one.layer.alpha == one.layer.rank; });
  }

  /// kohya's without what is sd-scripts' own.
  io::Metadata modelspec_metadata() const {
    if (options_.metadata == MetadataLevel::none) return {};
    io::Metadata metadata = kohya_metadata();
    std::erase_if(metadata,
                  [](const auto& field) { return field.first.starts_with("ss_network"); });
    return metadata;
  }

  /// sd-scripts' description of the network.
  io::Metadata kohya_metadata() const {
    io::Metadata metadata;
    if (options_.metadata == MetadataLevel::full) metadata = info_.extra;
    std::vector<const Written*> layers;
    for (const Written& one : written_) layers.push_back(&one);
    const bool plain = options_.format == AdapterFormat::kohya;
    const TransformerFamily family = names_.family();
    const double rank = most_common(layers, &LayerWriting::rank);
    const double alpha = most_common(layers, &LayerWriting::alpha);
    const bool mixed =
        std::ranges::any_of(written_, [&](const Written& one) { return one.layer.rank != rank; });
    metadata["ss_network_module"] = plain ? kohya_module(family) : "lycoris.kohya";
    metadata["ss_network_dim"] = mixed ? "Dynamic" : as_number(rank).dump();
    metadata["ss_network_alpha"] = mixed ? "Dynamic" : as_number(alpha).dump();
    Json arguments = Json::object();
    if (!plain) {
      const PartFormat& format = layers.empty() ? *find_format("diff") : *layers.front()->format;
      arguments["algo"] = *format.algorithm != '\0' ? format.algorithm : format.part;
    }
    metadata["ss_network_args"] = arguments.dump();
    metadata["modelspec.sai_model_spec"] = "1.0.1";
    if (!options_.title.empty()) metadata["modelspec.title"] = options_.title;
    if (family != TransformerFamily::none) {
      add_transformer_metadata(family, metadata);
      return metadata;
    }
    const bool xl = components_.contains("text_encoder_2"), two = !xl && is_version_2();
    metadata["ss_v2"] = two ? "True" : "False";
    metadata["ss_base_model_version"] = xl ? "sdxl_base_v1-0" : two ? "sd_v2" : "sd_v1";
    metadata["modelspec.architecture"] = xl    ? "stable-diffusion-xl-v1-base/lora"
                                         : two ? "stable-diffusion-v2-512/lora"
                                               : "stable-diffusion-v1/lora";
    metadata["modelspec.implementation"] = xl ? kStability : "diffusers";
    return metadata;
  }

  /// The module of sd-scripts that loads LoRA of a model.
  static const char* kohya_module(TransformerFamily family) {
    switch (family) {
      case TransformerFamily::flux:
        return "networks.lora_flux";
      case TransformerFamily::stable_diffusion_3:
        return "networks.lora_sd3";
      case TransformerFamily::none:
        return "networks.lora";
    }
    return "";
  }

  void add_transformer_metadata(TransformerFamily family, io::Metadata& metadata) const {
    const bool flux = family == TransformerFamily::flux;
    // schnell was not distilled with guidance
    const bool dev = std::ranges::any_of(components_, [](const auto& component) {
      return component.second->layers.contains("time_text_embed.guidance_embedder.linear_1");
    });
    metadata["ss_v2"] = "False";
    metadata["ss_base_model_version"] = flux ? "flux1" : "sd3";
    metadata["modelspec.architecture"] = !flux ? "stable-diffusion-3/lora"
                                         : dev ? "flux-1-dev/lora"
                                               : "flux-1-schnell/lora";
    metadata["modelspec.implementation"] =
        flux ? "https://github.com/black-forest-labs/flux" : kStability;
  }

  /// Stable Diffusion 2 by the width of its text: 1024 instead of 768.
  bool is_version_2() const {
    const auto unet = components_.find("unet");
    if (unet == components_.end()) return false;
    for (const auto& [name, layer] : unet->second->layers)
      if (name.ends_with("attn2.to_k")) return layer->stored_weight().size(1) == 1024;
    return false;
  }

  void write_kohya(const fs::path& path, const Tensors& tensors) const {
    if (options_.metadata == MetadataLevel::none) return io::save_tensors(path, tensors, {});
    io::Metadata metadata = kohya_metadata(), training;
    for (const auto& [key, value] : metadata)
      if (key.starts_with("ss_")) training.emplace(key, value);
    // The hashes are those of the file with its ss_ fields alone, so that later edits of other
    // fields keep them.
    io::save_tensors(path, tensors, training);
    metadata["sshs_model_hash"] = model_hash(path);
    metadata["sshs_legacy_hash"] = legacy_hash(path);
    io::save_tensors(path, tensors, metadata);
  }

  /// SHA-256 of the tensors' bytes.
  static std::string model_hash(const fs::path& path) {
    return Sha256().update(io::SafetensorsFile::open(path)->all_tensor_bytes()).hex();
  }

  /// The first 8 digits of the SHA-256 of 64 KiB from 1 MiB on; of nothing in shorter files.
  static std::string legacy_hash(const fs::path& path) {
    constexpr std::streamoff kBegin = 0x100000;
    constexpr std::size_t kLength = 0x10000, kDigits = 8;
    std::ifstream file(path, std::ios::binary);
    file.seekg(kBegin);
    std::vector<char> bytes(kLength);
    file.read(bytes.data(), static_cast<std::streamsize>(kLength));
    bytes.resize(static_cast<std::size_t>(std::max<std::streamsize>(0, file.gcount())));
    return Sha256().update(std::as_bytes(std::span(bytes))).hex().substr(0, kDigits);
  }

  const adapt::AdapterSet& set_;
  const adapt::AdapterFileInfo& info_;
  const adapt::Components& components_;
  const AdapterWriteOptions& options_;
  ModuleNames names_;
  Naming naming_;
  std::vector<Written> written_;
};

}  // namespace

void write_adapter(const fs::path& path, const adapt::AdapterSet& set,
                   const adapt::AdapterFileInfo& info, const adapt::Components& components,
                   const AdapterWriteOptions& options) {
  nn::with_ringlet_errors(path.string(), [&] {
    if (options.format != AdapterFormat::ringlet && !info.control.empty())
      throw Error(ErrorCode::unsupported, path.string(),
                  "the adapter holds a control encoder, which no other program's file can hold",
                  "use `to=ringlet`");
    if (options.format != AdapterFormat::ringlet)
      return AdapterWriter(set, info, components, options).write(path);
    adapt::AdapterFileInfo own = info;
    if (options.metadata == MetadataLevel::none) own.extra.clear();
    if (options.metadata != MetadataLevel::full) own.training.clear();
    adapt::save_adapter(path, set, own);
  });
}

}  // namespace ringlet::formats
