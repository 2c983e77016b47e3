#include "ringlet/pipeline/model_files.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/random.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConvertHint =
    "pickle files can run code when they are opened; convert once with Python: "
    "DiffusionPipeline.from_pretrained(FOLDER).save_pretrained(NEW, safe_serialization=True), or "
    "from_single_file(FILE).save_pretrained(NEW) of the model's pipeline class";

/// What else is no safetensors file, by its name.
constexpr const char* kGgufHint =
    "a GGUF file holds quantised weights of llama.cpp's kinds; use the safetensors file that it "
    "was made from, and `base_storage=nf4` or int8 to keep the weights narrow in memory";

bool is_pickle_name(const fs::path& path) {
  const std::string extension = path.extension().string();
  static constexpr std::array kExtensions = {".ckpt", ".bin", ".pt", ".pth", ".pkl"};
  return std::ranges::find(kExtensions, extension) != kExtensions.end();
}

bool has_files(const fs::path& folder, const std::string& base) {
  return std::ranges::any_of(fs::directory_iterator(folder), [&](const fs::directory_entry& entry) {
    return entry.path().filename().string().starts_with(base + ".");
  });
}

}  // namespace

std::string folder_name(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder).lexically_normal();
  const std::string name = whole.filename().string();
  return name.empty() ? whole.parent_path().filename().string() : name;
}

void check_model_path(const fs::path& path, const ModelFileOptions& options) {
  if (path.empty())
    throw Error(ErrorCode::invalid_argument, Field("model"), "a model folder or file is needed");
  if (!fs::exists(path)) {
    const bool looks_like_hub = path.is_relative() && path.string().find('/') != std::string::npos;
    throw Error(ErrorCode::not_found, path.string(), "the model does not exist",
                looks_like_hub ? "ringlet does not download models: give a local folder" : "");
  }
  if (fs::is_directory(path)) {
    const auto refuse = [&](const char* option) {
      throw Error(ErrorCode::invalid_argument, Field(option),
                  path.string() + " is a folder, which has its own tokenizer",
                  "leave it out; it is for single-file checkpoints");
    };
    if (!options.tokenizer.empty()) refuse("tokenizer");
    if (!options.t5_tokenizer.empty() && options.text_encoders.empty()) refuse("t5_tokenizer");
    return;
  }
  if (!options.variant.empty())
    throw Error(ErrorCode::invalid_argument, Field("variant"),
                path.string() + " is a single file, which has no variants",
                "leave it out; it is for model folders");
  if (is_pickle_name(path))
    throw Error(ErrorCode::unsupported, path.string(), "ringlet reads safetensors only",
                kConvertHint);
  if (path.extension() == ".gguf")
    throw Error(ErrorCode::unsupported, path.string(), "ringlet reads safetensors only", kGgufHint);
}

std::string pipeline_class(const fs::path& folder) {
  const fs::path index = folder / "model_index.json";
  if (!fs::exists(index))
    throw Error(ErrorCode::not_found, folder.string(), "there is no model_index.json",
                "give the top folder of a diffusers model, or a single .safetensors checkpoint");
  return json_require<std::string>(read_json_file(index), "_class_name", index.string());
}

bool has_pipeline_class(const fs::path& folder, const std::vector<std::string>& known) {
  return fs::exists(folder / "model_index.json") &&
         std::ranges::find(known, pipeline_class(folder)) != known.end();
}

bool has_part(const Json& index, const std::string& name) {
  const auto found = index.find(name);
  return found != index.end() && found->is_array() && found->size() == 2 && !(*found)[0].is_null();
}

const char* weights_base(NetworkRole role) {
  return role == NetworkRole::text_encoder ? "model" : "diffusion_pytorch_model";
}

ModelComponent open_component(const fs::path& root, const std::string& name, NetworkRole role,
                              const ModelFileOptions& options) {
  const fs::path folder = root / name;
  const char* base = weights_base(role);
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the model's folder is missing",
                "model_index.json lists it; download the model again");
  const fs::path config = folder / "config.json";
  ModelComponent part{role, read_json_file(config), config.string(), nullptr};
  formats::refuse_quantised(part.config, part.where);
  if (options.random_seed && !has_files(folder, base)) {
    const std::uint64_t seed = Random(*options.random_seed).stream("weights of " + name).next_u64();
    part.weights = std::make_shared<nn::RandomStore>(seed);
  } else {
    part.weights = nn::FileStore::open(find_weights(folder, base, options.variant));
  }
  return part;
}

TokenizerFiles open_tokenizer_folder(const fs::path& root, const std::string& name) {
  const fs::path folder = root / name;
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the tokenizer's folder is missing",
                "download the model again");
  return {folder};
}

void open_folder(ModelFiles& files, const fs::path& root, const Json& index,
                 const std::vector<FolderPart>& parts, const ModelFileOptions& options) {
  const auto require = [&](const std::string& part) {
    if (!has_part(index, part))
      throw Error(ErrorCode::unsupported, (root / "model_index.json").string(),
                  "the model has no part \"" + part + "\"");
  };
  for (const FolderPart& part : parts) {
    if (part.optional && !has_part(index, part.name)) continue;
    require(part.name);
    if (!part.tokenizer.empty()) require(part.tokenizer);
  }
  require("scheduler");
  files.path = root;
  files.name = folder_name(root);
  for (const FolderPart& part : parts) {
    if (!has_part(index, part.name)) continue;
    ModelComponent& opened = files.parts[part.name] =
        open_component(root, part.name, part.role, options);
    if (const auto stored = std::dynamic_pointer_cast<const nn::FileStore>(opened.weights)) {
      if (part.role == NetworkRole::denoiser)
        for (const auto& file : stored->files()) files.hash_files.push_back(file->path());
      opened.weights = formats::readable_weights(stored);
    }
    if (part.role == NetworkRole::autoencoder)
      opened.weights = formats::with_current_attention_names(opened.weights);
    if (part.role != NetworkRole::text_encoder) continue;
    opened.weights = formats::with_text_model_level(opened.weights);
    files.tokenizers[part.tokenizer] = open_tokenizer_folder(root, part.tokenizer);
  }
  const fs::path scheduler = root / "scheduler" / "scheduler_config.json";
  files.scheduler = read_json_file(scheduler);
  files.scheduler_where = scheduler.string();
}

fs::path single_file_tokenizer(const fs::path& file, const fs::path& given) {
  if (!given.empty()) return given;
  const fs::path beside = file.parent_path() / "tokenizer";
  if (fs::is_directory(beside)) return beside;
  throw Error(ErrorCode::not_found, file.string(),
              "a single-file checkpoint does not carry its tokenizer",
              "give `tokenizer=FOLDER` with CLIP's vocab.json and merges.txt (the folder "
              "\"tokenizer\" of any Stable Diffusion model), or put it beside the file");
}

namespace {

/// Whether a folder has T5's tokenizer: SentencePiece's model, alone or in tokenizer.json.
bool is_t5_tokenizer(const fs::path& folder) {
  if (fs::exists(folder / "spiece.model")) return true;
  const fs::path json = folder / "tokenizer.json";
  if (!fs::exists(json) || fs::exists(folder / "vocab.json")) return false;
  const Json content = read_json_file(json);
  return content.is_object() && content.contains("model") && content["model"].is_object() &&
         content["model"].value("type", Json()) == "Unigram";
}

}  // namespace

fs::path find_t5_tokenizer(const fs::path& model, const fs::path& encoder,
                           const ModelFileOptions& options) {
  if (!options.t5_tokenizer.empty())
    return fs::is_regular_file(options.t5_tokenizer) ? options.t5_tokenizer.parent_path()
                                                     : options.t5_tokenizer;
  if (!options.tokenizer.empty() && is_t5_tokenizer(options.tokenizer)) return options.tokenizer;
  std::vector<fs::path> places = {fs::is_directory(model) ? model : model.parent_path()};
  if (!encoder.empty()) {
    const fs::path whole = fs::absolute(encoder).lexically_normal();
    places.push_back(whole.parent_path());
    places.push_back(whole.parent_path().parent_path());
  }
  for (const fs::path& place : places)
    for (const char* name : {"tokenizer_3", "tokenizer_2", "tokenizer", ""})
      if (fs::path folder = name[0] == '\0' ? place : place / name; is_t5_tokenizer(folder))
        return folder;
  throw Error(ErrorCode::not_found, encoder.empty() ? model.string() : encoder.string(),
              "T5 needs its tokenizer, which weight files do not carry",
              "give `t5_tokenizer=FOLDER` with spiece.model or tokenizer.json (\"tokenizer_3\" of "
              "a folder of Stable Diffusion 3, \"tokenizer_2\" of FLUX.1), or put it beside the "
              "file");
}

ModelFileOptions with_found_tokenizers(const fs::path& model, const ModelFileOptions& options) {
  ModelFileOptions found = options;
  const fs::path beside = model.parent_path() / "tokenizer";
  if (found.tokenizer.empty() && fs::is_directory(beside)) found.tokenizer = beside;
  if (!found.t5_tokenizer.empty()) return found;
  std::vector<fs::path> encoders = {{}};
  encoders.insert(encoders.end(), options.text_encoders.begin(), options.text_encoders.end());
  for (const fs::path& encoder : encoders) {
    try {
      found.t5_tokenizer = find_t5_tokenizer(model, encoder, options);
      return found;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::not_found) throw;
    }
  }
  return found;
}

fs::path find_weights(const fs::path& folder, const std::string& base, const std::string& variant) {
  // The asked-for variant first, then plain files, then fp16.
  std::vector<std::string> variants;
  for (const std::string& name : {variant, std::string(), std::string("fp16")})
    if (std::ranges::find(variants, name) == variants.end()) variants.push_back(name);
  for (const std::string& name : variants) {
    const std::string dotted = name.empty() ? "" : "." + name;
    for (const std::string& file :
         {base + dotted + ".safetensors", base + ".safetensors.index" + dotted + ".json",
          base + ".safetensors" + dotted + ".index.json"}) {
      if (!fs::exists(folder / file)) continue;
      if (!variant.empty() && name != variant)
        log(LogLevel::warning,
            folder.string() + " has no \"" + variant + "\" weights; using " + file);
      return folder / file;
    }
  }
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".gguf")
      throw Error(ErrorCode::unsupported, entry.path().string(),
                  "ringlet reads safetensors only, and this part has only GGUF weights", kGgufHint);
    else if (is_pickle_name(entry.path()))
      throw Error(ErrorCode::unsupported, entry.path().string(),
                  "ringlet reads safetensors only, and this part has only pickled weights",
                  kConvertHint);
  throw Error(ErrorCode::not_found, (folder / (base + ".safetensors")).string(),
              "the weights are missing", "download the model again");
}

void describe(OptionList& list, ModelFileOptions& files) {
  list.add("variant", files.variant,
           "Variant of the weight files to prefer in a folder, for example fp16");
  list.add("tokenizer", files.tokenizer, "CLIP's tokenizer folder, for single-file checkpoints");
  list.add("t5_tokenizer", files.t5_tokenizer,
           "T5's tokenizer folder (spiece.model or tokenizer.json), for single-file checkpoints");
  list.add("text_encoder", files.text_encoders,
           "A text encoder in a file of its own, or a folder: CLIP-L, CLIP-G or T5, told by its "
           "tensors; in the place of the model's; may be given several times");
  list.add("vae", files.vae,
           "The autoencoder in a file of its own, or a folder; in the place of the model's");
}

void describe_text_tokens(OptionList& list, ModelFileOptions& files) {
  list.add(
          "text_tokens", files.text_tokens,
          "Tokens of a prompt that T5 reads, for Stable Diffusion 3 and FLUX, at most 512; 0 = the "
          "family's own: 256, and 512 for FLUX.1 dev")
      .within(Range::between(0, 512));
}

void describe_prediction(OptionList& list, ModelFileOptions& files) {
  static constexpr std::array<std::pair<const char*, diffusion::Prediction>, 2> kNames = {
      {{"epsilon", diffusion::Prediction::epsilon}, {"v", diffusion::Prediction::v}}};
  WrittenValue value = choice("prediction", files.prediction, kNames);
  const auto read = [&files, by_name = std::move(value.read)](const auto& texts) {
    const auto known = diffusion::find_prediction(texts.back());
    if (known && *known != diffusion::Prediction::sample)
      files.prediction = known;
    else
      by_name(texts);
  };
  value.read = read;
  list.add("prediction", std::move(value),
           "What the model predicts, where its files do not say it or say it wrongly");
  list.add("zero_terminal_snr", files.zero_terminal_snr,
           "Rescale the noise schedule to end in pure noise, in training and in sampling: for "
           "Stable Diffusion that predicts v");
}

}  // namespace ringlet::pipeline
