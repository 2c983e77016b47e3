#include "ringlet/pipeline/checkpoint_parts.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/original_transformer.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/describe.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;
using Store = std::shared_ptr<const nn::TensorStore>;

Store open_weights_at(const fs::path& path, NetworkRole role, const char* option) {
  if (!fs::exists(path))
    throw Error(ErrorCode::not_found, Field(option), path.string() + " does not exist",
                "give a .safetensors file, or the folder of such a part of a model");
  if (!fs::is_directory(path)) check_model_path(path, {});
  return formats::readable_weights(nn::FileStore::open(
      fs::is_directory(path) ? find_weights(path, weights_base(role), "") : path));
}

/// The configuration of a file's network where it stands beside it, as in a model folder.
std::optional<Json> config_beside(const fs::path& path) {
  const fs::path config = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  if (!fs::exists(config)) return std::nullopt;
  Json json = read_json_file(config);
  formats::refuse_quantised(json, config.string());
  return json;
}

const TextSlot* slot_of(const CheckpointFamily& family, formats::TextEncoderKind kind) {
  const auto slot = std::ranges::find(family.text, kind, &TextSlot::kind);
  return slot == family.text.end() ? nullptr : &*slot;
}

std::string kinds_of(const CheckpointFamily& family) {
  std::vector<std::string> kinds;
  for (const TextSlot& slot : family.text) kinds.emplace_back(name_of(slot.kind));
  return join(kinds);
}

/// Which encoder one of CLIP's is whose tensors do not say it: small ones are told by the file.
void tell_by_name(formats::FoundTextEncoder& found, const fs::path& path) {
  const std::string name = path.stem().string();
  if (found.kind != formats::TextEncoderKind::clip_l ||
      (name.find("clip_g") == std::string::npos && name.find("bigG") == std::string::npos))
    return;
  found.kind = formats::TextEncoderKind::clip_g;
  found.encoder.config["hidden_act"] = "gelu";
}

/// The text encoders of a given file, with the configuration beside it where there is one.
std::vector<formats::FoundTextEncoder> encoders_at(const fs::path& path, const Store& store) {
  std::vector<formats::FoundTextEncoder> found = formats::find_text_encoders(*store);
  if (found.empty())
    throw Error(ErrorCode::unsupported, path.string(), "the file holds no text encoder",
                "give CLIP-L, CLIP-G or T5 (clip_l.safetensors, t5xxl_fp16.safetensors, …)");
  if (found.size() > 1) return found;
  tell_by_name(found.front(), path);
  auto config = config_beside(path);
  if (!config) return found;
  if (const auto kind = formats::text_encoder_kind(*config)) {
    found.front().kind = *kind;
    found.front().encoder.config = std::move(*config);
  }
  return found;
}

void use_text_encoder(ModelFiles& files, const std::string& given, const CheckpointFamily& family,
                      std::set<std::string>& filled) {
  const fs::path path = given;
  const Store store = open_weights_at(path, NetworkRole::text_encoder, "text_encoder");
  for (formats::FoundTextEncoder& found : encoders_at(path, store)) {
    const char* const kind = name_of(found.kind);
    const TextSlot* slot = slot_of(family, found.kind);
    if (slot == nullptr)
      throw Error(ErrorCode::invalid_argument, Field("text_encoder"),
                  given + " is " + kind + ", which " + family.name + " does not take",
                  family.text.empty() ? "leave it out" : "it takes " + kinds_of(family));
    if (!filled.insert(slot->part).second)
      throw Error(ErrorCode::invalid_argument, Field("text_encoder"),
                  given + " is " + kind + ", which was given already",
                  "give one file for each of " + kinds_of(family));
    formats::SingleFileComponent part =
        open_text_encoder(store, std::move(found), family.projection);
    files.parts[slot->part] = {NetworkRole::text_encoder, std::move(part.config), given,
                               std::move(part.weights)};
  }
}

void use_autoencoder(ModelFiles& files, const fs::path& path, formats::LatentScale scale) {
  const Store store = open_weights_at(path, NetworkRole::autoencoder, "vae");
  const auto prefix = formats::find_autoencoder(*store);
  if (!prefix)
    throw Error(ErrorCode::unsupported, path.string(), "the file holds no autoencoder",
                "give one of the model's family (ae.safetensors of FLUX.1, …)");
  // A folder says itself how its latents are scaled.
  if (const auto own = files.parts.find("vae"); own != files.parts.end()) {
    const Json& config = own->second.config;
    scale.scaling_factor = json_value(config, "scaling_factor", scale.scaling_factor, own->first);
    if (config.contains("shift_factor") && config.at("shift_factor").is_number())
      scale.shift_factor = config.at("shift_factor").get<double>();
  }
  formats::SingleFileComponent part = formats::open_autoencoder(store, *prefix, scale);
  if (auto config = config_beside(path); config && config->contains("latent_channels"))
    part.config = std::move(*config);
  files.parts["vae"] = {NetworkRole::autoencoder, std::move(part.config), path.string(),
                        std::move(part.weights)};
}

/// Text encoders and autoencoder of the checkpoint itself.
void add_own_parts(ModelFiles& files, const Store& store, const CheckpointFamily& family) {
  const std::string where = files.path.string();
  for (formats::FoundTextEncoder& found : formats::find_text_encoders(*store)) {
    const TextSlot* slot = slot_of(family, found.kind);
    if (slot == nullptr || files.parts.contains(slot->part)) continue;
    formats::SingleFileComponent part =
        open_text_encoder(store, std::move(found), family.projection);
    files.parts[slot->part] = {NetworkRole::text_encoder, std::move(part.config), where,
                               std::move(part.weights)};
  }
  if (const auto prefix = formats::find_autoencoder(*store)) {
    formats::SingleFileComponent part = formats::open_autoencoder(store, *prefix, family.latents);
    files.parts["vae"] = {NetworkRole::autoencoder, std::move(part.config), where,
                          std::move(part.weights)};
  }
}

/// The part that a tensor of such a file belongs to.
std::string part_of_original(const std::string& name) {
  const auto has = [&](const char* word) { return name.find(word) != std::string::npos; };
  if (name.starts_with("text_encoders.") || name.starts_with("conditioner.") ||
      name.starts_with("cond_stage_model.")) {
    if (has("t5xxl")) return "T5";
    return has("clip_g") || has("embedders.1.") ? "CLIP-G" : "CLIP-L";
  }
  if (name.starts_with("first_stage_model.") || name.starts_with("vae.")) return "vae";
  return "transformer";
}

}  // namespace

bool has_original_transformer(const io::SafetensorsFile& file, formats::TransformerFamily family) {
  for (const char* prefix : {"model.diffusion_model.", "diffusion_model.", ""}) {
    const auto has = [&](const std::string& name) { return file.find(prefix + name) != nullptr; };
    const bool found =
        family == formats::TransformerFamily::flux
            ? has("double_blocks.0.img_attn.qkv.weight") || has("single_blocks.0.linear1.weight")
            : has("joint_blocks.0.x_block.attn.qkv.weight");
    if (found) return true;
  }
  return false;
}

void find_checkpoint_parts(ModelFiles& files, const fs::path& path, const ModelFileOptions& options,
                           const CheckpointFamily& family) {
  const auto file = options.single_file ? options.single_file : io::SafetensorsFile::open(path);
  const Store store = formats::readable_weights(std::make_shared<nn::FileStore>(std::vector{file}));
  const auto found = formats::find_original_transformer(*store);
  if (!found || found->family != family.transformer)
    throw Error(ErrorCode::unsupported, path.string(),
                "the file holds no transformer of " + family.name + " in the original layout",
                "ringlet inspect FILE shows what a file contains");
  files.path = path;
  files.name = path.stem().string();
  files.hash_files = {path};
  formats::SingleFileComponent part = formats::open_original_transformer(store, *found);
  files.parts["transformer"] = {NetworkRole::denoiser, std::move(part.config), path.string(),
                                std::move(part.weights)};
  add_own_parts(files, store, family);
  use_given_parts(files, options, family);
}

void use_given_parts(ModelFiles& files, const ModelFileOptions& options,
                     const CheckpointFamily& family) {
  std::set<std::string> filled;
  for (const std::string& given : options.text_encoders)
    use_text_encoder(files, given, family, filled);
  for (const std::string& part : filled)
    for (const TextSlot& slot : family.text)
      if (slot.part == part && slot.kind == formats::TextEncoderKind::t5)
        files.tokenizers.erase(slot.tokenizer);
  if (!options.vae.empty()) use_autoencoder(files, options.vae, family.latents);
}

void require_parts(const ModelFiles& files, const CheckpointFamily& family) {
  std::vector<std::string> missing, options;
  for (const TextSlot& slot : family.text)
    if (!slot.optional && !files.parts.contains(slot.part))
      missing.push_back(std::string("text encoder ") + name_of(slot.kind));
  if (!missing.empty()) options.emplace_back("`text_encoder=FILE`");
  if (!files.parts.contains("vae")) {
    missing.emplace_back("autoencoder");
    options.emplace_back("`vae=FILE`");
  }
  if (missing.empty()) return;
  throw Error(ErrorCode::not_found, files.path.string(),
              "the file holds no " + join(missing) + ", which " + family.name + " needs",
              "give " + join(options) + ", or use a checkpoint with everything inside");
}

void find_tokenizers(ModelFiles& files, const ModelFileOptions& options,
                     const CheckpointFamily& family) {
  for (const TextSlot& slot : family.text) {
    const auto part = files.parts.find(slot.part);
    if (part == files.parts.end() || files.tokenizers.contains(slot.tokenizer)) continue;
    const bool given = part->second.where != files.path.string();
    if (slot.kind == formats::TextEncoderKind::t5)
      files.tokenizers[slot.tokenizer] = {find_t5_tokenizer(
          files.path, given ? fs::path(part->second.where) : fs::path(), options)};
    else
      files.tokenizers[slot.tokenizer] = {
          single_file_tokenizer(files.path, options.tokenizer),
          slot.kind == formats::TextEncoderKind::clip_g ? kOpenClipPadding : ""};
  }
}

std::string given_text_encoders(const fs::path& path) {
  const Store store = open_weights_at(path, NetworkRole::text_encoder, "text_encoder");
  std::vector<std::string> kinds;
  for (const formats::FoundTextEncoder& found : encoders_at(path, store))
    kinds.emplace_back(name_of(found.kind));
  return join(kinds) + " (given)";
}

Json describe_checkpoint(const ModelFiles& files, const CheckpointFamily& family) {
  const auto file = io::SafetensorsFile::open(files.path);
  Json notes = Json::array();
  for (const TextSlot& slot : family.text)
    if (!files.parts.contains(slot.part))
      notes.push_back(std::string("it has no text encoder ") + name_of(slot.kind) +
                      (slot.optional ? ", and works without; " : "; ") +
                      "`text_encoder=FILE` gives one");
  if (!files.parts.contains("vae")) notes.push_back("it has no autoencoder; `vae=FILE` gives one");
  Json out = {{"path", files.path.string()},
              {"kind", files.kind + " checkpoint"},
              {"components", components_of(*file, part_of_original)},
              {"metadata", file->metadata()},
              {"notes", notes}};
  add_schedule(out, files.scheduler, files.scheduler_where, files.prediction_source);
  if (out.contains("schedule")) out["schedule"]["source"] = "assumed: that of the published models";
  if (out.contains("prediction")) out["prediction"]["source"] = "the kind of the model";
  return out;
}

}  // namespace ringlet::pipeline
