#include "ringlet/models/published_layout.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "ringlet/core/error.h"

namespace ringlet::models {
namespace {

using Words = std::span<const std::string_view>;

/// What classes with a head put before the names of the network inside.
struct Level {
  std::string_view name;   ///< "bert."
  std::string_view first;  ///< a tensor that every file has: without the level, it is left out
  Words parts;             ///< the first words of what lies under it
};

constexpr std::array<std::string_view, 3> kBertParts{"embeddings", "encoder", "pooler"};
constexpr std::string_view kBertFirst = "embeddings.word_embeddings.weight";
constexpr std::array kBertLevel{Level{"bert.", kBertFirst, kBertParts}};
constexpr std::array kRobertaLevel{Level{"roberta.", kBertFirst, kBertParts}};
/// transformers' BertFor… and RobertaFor…: PreTraining, MaskedLM, SequenceClassification,
/// TokenClassification, MultipleChoice and QuestionAnswering; poolers, which not every head reads.
constexpr std::array<std::string_view, 4> kBertRest{"cls.", "classifier.", "qa_outputs.",
                                                    "bert.pooler."};
constexpr std::array<std::string_view, 4> kRobertaRest{"lm_head.", "classifier.", "qa_outputs.",
                                                       "roberta.pooler."};

constexpr std::array<std::string_view, 4> kGpt2Parts{"wte", "wpe", "h", "ln_f"};
constexpr std::array kGpt2Level{Level{"transformer.", "wte.weight", kGpt2Parts}};
/// The head is the table of words again; classification, questions, multiple choice.
constexpr std::array<std::string_view, 5> kGpt2Rest{"lm_head.", "score.", "classifier.",
                                                    "qa_outputs.", "multiple_choice_head."};

/// Networks that only adapters and merging know, by their names alone.
constexpr std::array<std::string_view, 2> kDistilBertParts{"embeddings", "transformer"};
constexpr std::array kDistilBertLevel{Level{"distilbert.", kBertFirst, kDistilBertParts}};
constexpr std::array<std::string_view, 3> kElectraParts{"embeddings", "embeddings_project",
                                                        "encoder"};
constexpr std::array kElectraLevel{Level{"electra.", kBertFirst, kElectraParts}};
constexpr std::array<std::string_view, 3> kLlamaParts{"embed_tokens", "layers", "norm"};
constexpr std::array kLlamaLevel{Level{"model.", "embed_tokens.weight", kLlamaParts}};

constexpr std::array<std::string_view, 4> kVitParts{"embeddings", "encoder", "layernorm", "pooler"};
constexpr std::array kVitLevel{Level{"vit.", "embeddings.cls_token", kVitParts}};
/// ViTForImageClassification; ViTForMaskedImageModeling.
constexpr std::array<std::string_view, 4> kVitRest{"classifier.", "decoder.", "vit.pooler.",
                                                   "vit.embeddings.mask_token"};
constexpr std::array kDinov2Level{Level{"dinov2.", "embeddings.cls_token", kVitParts}};
constexpr std::array<std::string_view, 2> kDinov2Rest{"classifier.",
                                                      "dinov2.embeddings.mask_token"};

constexpr std::array<std::string_view, 3> kClipTextParts{"embeddings", "encoder",
                                                         "final_layer_norm"};
constexpr std::array<std::string_view, 4> kClipPictureParts{"embeddings", "encoder", "pre_layrnorm",
                                                            "post_layernorm"};
constexpr std::array kClipLevels{
    Level{"text_model.", "embeddings.token_embedding.weight", kClipTextParts},
    Level{"vision_model.", "embeddings.class_embedding", kClipPictureParts}};
constexpr std::array<std::string_view, 1> kClipRest{"classifier."};

constexpr std::array<std::string_view, 4> kWav2Vec2Parts{"feature_extractor", "feature_projection",
                                                         "encoder", "masked_spec_embed"};
constexpr std::array kWav2Vec2Level{
    Level{"wav2vec2.", "feature_projection.layer_norm.weight", kWav2Vec2Parts}};
/// Wav2Vec2ForPreTraining, ForCTC, ForSequenceClassification, ForXVector.
constexpr std::array<std::string_view, 10> kWav2Vec2Rest{
    "quantizer.",  "project_hid.",  "project_q.", "lm_head.",           "projector.",
    "classifier.", "layer_weights", "tdnn.",      "feature_extractor.", "objective."};

constexpr std::array<std::string_view, 2> kResNetParts{"embedder", "encoder"};
constexpr std::array kResNetLevel{
    Level{"resnet.", "embedder.embedder.convolution.weight", kResNetParts}};

/// Buffers that older versions saved: positions, types, GPT-2's causal masks. They say nothing.
bool is_buffer(std::string_view name) {
  static constexpr std::array<std::string_view, 4> kEnds{".position_ids", ".token_type_ids",
                                                         ".attn.bias", ".attn.masked_bias"};
  return std::ranges::any_of(kEnds, [&](std::string_view end) { return name.ends_with(end); });
}

/// LayerNorm's first names, as Google's TensorFlow checkpoints have them.
std::string with_current_norm(std::string name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kOldToNew{
      {{"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}}};
  for (const auto& [old_end, new_end] : kOldToNew)
    if (name.ends_with(old_end))
      return name.replace(name.size() - old_end.size(), name.size(), new_end);
  return name;
}

std::string_view first_word(std::string_view name) { return name.substr(0, name.find('.')); }

std::string replaced_front(const std::string& name, std::string_view from, std::string_view to) {
  return std::string(to) + name.substr(from.size());
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kResNetFronts{
    {{"resnet.embedder.embedder.convolution.", "conv1."},
     {"resnet.embedder.embedder.normalization.", "bn1."},
     {"classifier.1.", "fc."}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kResNetShortcuts{
    {{"shortcut.convolution.", "downsample.0."}, {"shortcut.normalization.", "downsample.1."}}};

/// "12.rest" as {12, "rest"}.
std::pair<int, std::string> number_and_rest(const std::string& text) {
  const std::size_t dot = text.find('.');
  const bool number = dot != std::string::npos && dot > 0 && dot < 6 &&
                      std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(dot),
                                  [](char c) { return c >= '0' && c <= '9'; });
  return number ? std::pair{std::stoi(text), text.substr(dot + 1)} : std::pair{-1, text};
}

std::string torchvision_name(const std::string& name) {
  for (const auto& [theirs, ours] : kResNetFronts)
    if (name.starts_with(theirs)) return replaced_front(name, theirs, ours);
  constexpr std::string_view kStages = "resnet.encoder.stages.", kLayers = "layers.",
                             kLayer = "layer.";
  if (!name.starts_with(kStages)) return name;
  const auto [stage, in_stage] = number_and_rest(name.substr(kStages.size()));
  if (stage < 0 || !in_stage.starts_with(kLayers)) return name;
  const auto [block, part] = number_and_rest(in_stage.substr(kLayers.size()));
  if (block < 0) return name;
  const std::string front = "layer" + std::to_string(stage + 1) + "." + std::to_string(block) + ".";
  for (const auto& [theirs, ours] : kResNetShortcuts)
    if (part.starts_with(theirs)) return front + replaced_front(part, theirs, ours);
  if (!part.starts_with(kLayer)) return name;
  const auto [number, kind] = number_and_rest(part.substr(kLayer.size()));
  for (const auto& [theirs, ours] :
       {std::pair{"convolution.", "conv"}, std::pair{"normalization.", "bn"}})
    if (number >= 0 && kind.starts_with(theirs))
      return front + ours + std::to_string(number + 1) + "." +
             kind.substr(std::string_view(theirs).size());
  return name;
}

std::string transformers_name(const std::string& name) {
  for (const auto& [theirs, ours] : kResNetFronts)
    if (name.starts_with(ours)) return replaced_front(name, ours, theirs);
  constexpr std::string_view kLayer = "layer";
  if (!name.starts_with(kLayer)) return name;
  const auto [stage, in_stage] = number_and_rest(name.substr(kLayer.size()));
  const auto [block, part] = number_and_rest(in_stage);
  if (stage < 1 || block < 0) return name;
  const std::string front = "resnet.encoder.stages." + std::to_string(stage - 1) + ".layers." +
                            std::to_string(block) + ".";
  for (const auto& [theirs, ours] : kResNetShortcuts)
    if (part.starts_with(ours)) return front + replaced_front(part, ours, theirs);
  for (const auto& [theirs, ours] :
       {std::pair{".convolution.", "conv"}, std::pair{".normalization.", "bn"}}) {
    if (!part.starts_with(ours)) continue;
    const auto [number, tail] = number_and_rest(part.substr(std::string_view(ours).size()));
    if (number >= 1) return front + "layer." + std::to_string(number - 1) + theirs + tail;
  }
  return name;
}

}  // namespace

struct PublishedLayout::Kind {
  std::string_view type;
  std::span<const Level> levels;
  Words left_out;  ///< beginnings of the network's names
};

namespace {

constexpr std::array kKinds{
    PublishedLayout::Kind{"bert", kBertLevel, kBertRest},
    PublishedLayout::Kind{"roberta", kRobertaLevel, kRobertaRest},
    PublishedLayout::Kind{"gpt2", kGpt2Level, kGpt2Rest},
    PublishedLayout::Kind{"vit", kVitLevel, kVitRest},
    PublishedLayout::Kind{"dinov2", kDinov2Level, kDinov2Rest},
    PublishedLayout::Kind{"clip", kClipLevels, kClipRest},
    PublishedLayout::Kind{"clip_vision_model", kClipLevels, kClipRest},
    PublishedLayout::Kind{"wav2vec2", kWav2Vec2Level, kWav2Vec2Rest},
    PublishedLayout::Kind{"resnet", kResNetLevel, {}},
    PublishedLayout::Kind{"xlm-roberta", kRobertaLevel, kRobertaRest},
    PublishedLayout::Kind{"distilbert", kDistilBertLevel, {}},
    PublishedLayout::Kind{"electra", kElectraLevel, {}},
    PublishedLayout::Kind{"gpt_neo", kGpt2Level, kGpt2Rest},
    PublishedLayout::Kind{"llama", kLlamaLevel, {}},
    PublishedLayout::Kind{"mistral", kLlamaLevel, {}},
    PublishedLayout::Kind{"qwen2", kLlamaLevel, {}},
};

/// Older files of a kind may name its first tensor otherwise, so that any name will do.
bool has_level(const std::vector<std::string>& names, const Level& level) {
  return std::ranges::any_of(names,
                             [&](const std::string& name) { return name.starts_with(level.name); });
}

bool leaves_out(const std::vector<std::string>& names, const Level& level) {
  return !has_level(names, level) && std::ranges::find(names, level.first) != names.end();
}

/// The kinds that a file with these tensors may be of.
std::vector<std::string> kinds_of(const std::vector<std::string>& names) {
  std::vector<std::string> kinds;
  for (const PublishedLayout::Kind& kind : kKinds)
    for (const Level& level : kind.levels) {
      const std::string with = std::string(level.name) + std::string(level.first);
      if (std::ranges::find(names, level.first) == names.end() &&
          std::ranges::find(names, with) == names.end())
        continue;
      kinds.emplace_back(kind.type);
      break;
    }
  return kinds;
}

}  // namespace

std::string network_type(const Json& config) {
  const auto text = [&](const char* key) {
    const auto found = config.find(key);
    return found != config.end() && found->is_string() ? found->get<std::string>() : "";
  };
  if (const std::string type = text("model_type"); !type.empty()) return type;
  std::vector<std::string> classes = {text("architecture")};
  if (const auto listed = config.find("architectures");
      listed != config.end() && listed->is_array())
    for (const Json& name : *listed)
      if (name.is_string()) classes.push_back(name.get<std::string>());
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kClasses{
      {{"Bert", "bert"},
       {"Roberta", "roberta"},
       {"GPT2", "gpt2"},
       {"ViT", "vit"},
       {"CLIP", "clip"},
       {"Wav2Vec2", "wav2vec2"},
       {"ResNet", "resnet"},
       {"resnet", "resnet"}}};
  for (const std::string& name : classes)
    for (const auto& [front, type] : kClasses)
      if (name.starts_with(front)) return std::string(type);
  if (config.contains("n_embd") && config.contains("n_layer")) return "gpt2";
  // Google's and fairseq's: RoBERTa has no second text, and positions after those of the padding.
  if (config.contains("type_vocab_size") && config.contains("num_hidden_layers"))
    return config["type_vocab_size"] == 1 ? "roberta" : "bert";
  return "";
}

std::string required_network_type(const Json& config, const std::string& where) {
  const std::string type = network_type(config);
  return type.empty() ? json_require<std::string>(config, "model_type", where) : type;
}

PublishedLayout::PublishedLayout(const std::string& kind, const std::vector<std::string>& names,
                                 const Json& config) {
  const auto found = std::ranges::find(kKinds, std::string_view(kind), &Kind::type);
  if (found == kKinds.end()) return;
  kind_ = &*found;
  for (const Level& level : kind_->levels)
    if (leaves_out(names, level)) levels_.emplace_back(level.name);
  if (kind_->type == "resnet")
    of_transformers_ = names.empty() ? config.contains("hidden_sizes")
                                     : !levels_.empty() || has_level(names, kResNetLevel.front());
}

std::string PublishedLayout::class_name(const std::string& in_file) const {
  if (kind_ == nullptr) return in_file;
  std::string name = with_current_norm(in_file);
  for (const Level& level : kind_->levels)
    if (std::ranges::find(levels_, level.name) != levels_.end() &&
        std::ranges::find(level.parts, first_word(name)) != level.parts.end())
      return std::string(level.name) + name;
  return name;
}

std::string PublishedLayout::network_name(const std::string& in_file) const {
  const std::string name = class_name(in_file);
  return of_transformers_ ? torchvision_name(name) : name;
}

std::string PublishedLayout::class_of(const std::string& network_name) const {
  return of_transformers_ ? transformers_name(network_name) : network_name;
}

std::string PublishedLayout::bare_name(const std::string& class_name) const {
  if (kind_ == nullptr) return class_name;
  for (const Level& level : kind_->levels)
    if (class_name.starts_with(level.name)) return class_name.substr(level.name.size());
  return class_name;
}

bool PublishedLayout::is_left_out(const std::string& network_name) const {
  if (kind_ == nullptr) return false;
  return is_buffer(network_name) ||
         std::ranges::any_of(kind_->left_out, [&](std::string_view front) {
           return network_name.starts_with(front);
         });
}

std::string PublishedLayout::layer_name(const std::string& network_layer, bool bare) const {
  std::string name = class_of(network_layer + ".");
  name.pop_back();
  return bare ? bare_name(name) : name;
}

nn::ModuleIndex PublishedLayout::in_class(const nn::ModuleIndex& index, bool bare) const {
  nn::ModuleIndex out;
  out.slots = index.slots;
  for (const auto& [name, tensor] : index.tensors)
    out.tensors.emplace(bare ? bare_name(class_of(name)) : class_of(name), tensor);
  for (const auto& [name, layer] : index.layers) out.layers.emplace(layer_name(name, bare), layer);
  return out;
}

PublishedStore::PublishedStore(std::shared_ptr<const nn::TensorStore> file,
                               const PublishedLayout& layout)
    : file_(std::move(file)) {
  for (const std::string& name : file_->names()) {
    const auto [place, is_new] = origins_.emplace(layout.network_name(name), name);
    if (!is_new)
      throw Error(ErrorCode::bad_format, file_->description(),
                  "has the tensor \"" + place->first + "\" twice, as \"" + place->second +
                      "\" and \"" + name + "\"",
                  "the file was put together wrongly");
    if (!layout.is_left_out(place->first)) names_.push_back(place->first);
  }
  std::ranges::sort(names_);
}

std::optional<at::Tensor> PublishedStore::find(const std::string& name, const nn::Shape& shape,
                                               const nn::Init& init) const {
  const auto found = origins_.find(name);
  return found == origins_.end() ? std::nullopt : file_->find(found->second, shape, init);
}

std::map<std::string, std::string> other_names(const std::vector<std::string>& in_file) {
  std::map<std::string, std::string> others;
  std::vector<std::string> unclear = in_file;  // CLIP's two sides have the same bare names
  const auto add = [&](const std::string& other, const std::string& name) {
    const auto [place, is_new] = others.emplace(other, name);
    if (!is_new && place->second != name) unclear.push_back(other);
  };
  for (const std::string& kind : kinds_of(in_file)) {
    const PublishedLayout layout(kind, in_file);
    for (const std::string& name : in_file) {
      const std::string of_class = layout.class_name(name);
      add(of_class, name);
      add(layout.bare_name(of_class), name);
      add(layout.network_name(name), name);
    }
  }
  for (const std::string& name : unclear) others.erase(name);
  return others;
}

bool is_left_out(const std::string& in_file, const std::vector<std::string>& names) {
  const std::vector<std::string> kinds = kinds_of(names);
  return std::ranges::any_of(kinds, [&](const std::string& kind) {
    const PublishedLayout layout(kind, names);
    return layout.is_left_out(layout.network_name(in_file));
  });
}

}  // namespace ringlet::models
