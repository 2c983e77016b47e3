#include "ringlet/formats/text_encoder_file.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>

#include <ATen/ops/eye.h>

#include "ringlet/core/error.h"
#include "ringlet/formats/renamed_store.h"

namespace ringlet::formats {
namespace {

constexpr std::int64_t kWidthOfClipG = 1280;
constexpr const char* kProjection = "text_projection.weight";
constexpr const char* kProjectedClass = "CLIPTextModelWithProjection";

/// A tensor that every encoder of a layout has, behind the prefix of its names.
constexpr std::string_view kClipMark = "text_model.embeddings.token_embedding.weight";
constexpr std::string_view kFlatClipMark = "embeddings.token_embedding.weight";
constexpr std::string_view kOpenClipMark = "transformer.resblocks.0.ln_1.weight";
constexpr std::string_view kT5Mark = "encoder.block.0.layer.0.SelfAttention.q.weight";

at::Tensor tensor_of_encoder(const nn::TensorStore& store, const std::string& name) {
  auto tensor = store.find(name, {}, {});
  if (!tensor || tensor->dim() != 2)
    throw Error(ErrorCode::bad_format, store.description(),
                "tensor \"" + name + "\" is " + (tensor ? "no matrix" : "missing"),
                "the file holds no complete text encoder");
  return *tensor;
}

/// What else a file has behind the same prefix (a vision encoder, scales) is no part of it.
void keep_text_alone(std::map<std::string, TensorOrigin>& origins) {
  std::erase_if(origins, [](const auto& entry) {
    return !entry.first.starts_with("text_model.") && entry.first != kProjection;
  });
}

bool names_clip_g(const std::string& prefix) {
  return prefix.find("clip_g") != std::string::npos ||
         prefix.find("embedders.1.") != std::string::npos;
}

FoundTextEncoder clip_at(const nn::TensorStore& store, const std::string& prefix) {
  FoundTextEncoder found{TextEncoderKind::clip_l, read_clip_text(store, prefix)};
  keep_text_alone(found.encoder.origins);
  Json& config = found.encoder.config;
  if (names_clip_g(prefix) || config.at("hidden_size") == kWidthOfClipG) {
    found.kind = TextEncoderKind::clip_g;
    config["hidden_act"] = "gelu";
  }
  if (found.encoder.origins.contains(kProjection)) {
    config["architectures"] = {kProjectedClass};
    config["projection_dim"] = tensor_of_encoder(store, prefix + kProjection).size(0);
  }
  return found;
}

FoundTextEncoder open_clip_at(const nn::TensorStore& store, const std::string& prefix) {
  FoundTextEncoder found{TextEncoderKind::clip_g,
                         read_open_clip_text(store, prefix, /*drop_last=*/false)};
  keep_text_alone(found.encoder.origins);
  return found;
}

Json t5_config(const nn::TensorStore& store, const std::string& prefix) {
  const auto named = [&](const std::string& name) {
    return store.find(prefix + name, {}, {}).has_value();
  };
  const auto size = [&](const std::string& name, std::int64_t axis) {
    return tensor_of_encoder(store, prefix + name).size(axis);
  };
  const std::string first = "encoder.block.0.layer.";
  std::int64_t layers = 0;
  while (named("encoder.block." + std::to_string(layers) + ".layer.0.SelfAttention.q.weight"))
    ++layers;
  const std::string bias = first + "0.SelfAttention.relative_attention_bias.weight";
  const std::int64_t heads = std::max<std::int64_t>(1, size(bias, 1));
  const bool gated = named(first + "1.DenseReluDense.wi_0.weight");
  const std::string inner = first + "1.DenseReluDense." + (gated ? "wi_0" : "wi") + ".weight";
  const std::string words =
      named("shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  constexpr std::int64_t kFarthest = 128;
  return {{"architectures", {"T5EncoderModel"}},
          {"model_type", "t5"},
          {"vocab_size", size(words, 0)},
          {"d_model", size(words, 1)},
          {"d_ff", size(inner, 0)},
          {"num_layers", layers},
          {"num_heads", heads},
          {"d_kv", size(first + "0.SelfAttention.q.weight", 0) / heads},
          {"feed_forward_proj", gated ? "gated-gelu" : "relu"},
          {"relative_attention_num_buckets", size(bias, 0)},
          {"relative_attention_max_distance", kFarthest}};
}

FoundTextEncoder t5_at(const nn::TensorStore& store, const std::string& prefix) {
  FoundTextEncoder found{TextEncoderKind::t5, {.config = t5_config(store, prefix), .origins = {}}};
  for (const std::string& name : store.names()) {
    if (!name.starts_with(prefix)) continue;
    const std::string rest = name.substr(prefix.size());
    if (rest.starts_with("encoder.") || rest == "shared.weight")
      found.encoder.origins[rest] = {.name = name};
  }
  return found;
}

}  // namespace

const char* name_of(TextEncoderKind kind) {
  switch (kind) {
    case TextEncoderKind::clip_l:
      return "CLIP-L";
    case TextEncoderKind::clip_g:
      return "CLIP-G";
    case TextEncoderKind::t5:
      return "T5";
  }
  return "";
}

std::vector<FoundTextEncoder> find_text_encoders(const nn::TensorStore& store) {
  struct Mark {
    std::string_view ending;
    FoundTextEncoder (*read)(const nn::TensorStore&, const std::string&);
  };
  // The longer one of CLIP's first: the other is its end.
  static constexpr std::array<Mark, 4> kMarks = {{{kClipMark, clip_at},
                                                  {kFlatClipMark, clip_at},
                                                  {kOpenClipMark, open_clip_at},
                                                  {kT5Mark, t5_at}}};
  std::vector<FoundTextEncoder> found;
  for (const std::string& name : store.names()) {
    const auto mark = std::ranges::find_if(kMarks, [&](const Mark& one) {
      const std::size_t at = name.size() - std::min(name.size(), one.ending.size());
      return name.ends_with(one.ending) && (at == 0 || name[at - 1] == '.');
    });
    if (mark != kMarks.end())
      found.push_back(mark->read(store, name.substr(0, name.size() - mark->ending.size())));
  }
  return found;
}

std::optional<TextEncoderKind> text_encoder_kind(const Json& config) {
  if (!config.is_object()) return std::nullopt;
  if (config.contains("d_model") && config.contains("d_kv")) return TextEncoderKind::t5;
  if (!config.contains("hidden_size") || !config.contains("max_position_embeddings"))
    return std::nullopt;
  const auto activation = config.find("hidden_act");
  return activation != config.end() && *activation == "gelu" ? TextEncoderKind::clip_g
                                                             : TextEncoderKind::clip_l;
}

SingleFileComponent open_text_encoder(const std::shared_ptr<const nn::TensorStore>& store,
                                      FoundTextEncoder found, ClipProjection projection) {
  LdmTextEncoder encoder = std::move(found.encoder);
  const bool clip_l = found.kind == TextEncoderKind::clip_l;
  if (clip_l && projection == ClipProjection::none) {
    encoder.origins.erase(kProjection);
    encoder.config["architectures"] = {"CLIPTextModel"};
  }
  const bool lacks =
      clip_l && projection == ClipProjection::needed && !encoder.origins.contains(kProjection);
  SingleFileComponent part{std::move(encoder.config),
                           std::make_shared<RenamedStore>(store, std::move(encoder.origins))};
  if (!lacks) return part;
  const std::int64_t width = part.config.at("hidden_size");
  part.config["architectures"] = {kProjectedClass};
  part.config["projection_dim"] = width;
  part.weights = std::make_shared<StoreWith>(
      part.weights, std::map<std::string, at::Tensor>{{kProjection, at::eye(width)}});
  return part;
}

std::optional<at::Tensor> StoreWith::find(const std::string& name, const nn::Shape& shape,
                                          const nn::Init& init) const {
  const auto added = added_.find(name);
  return added == added_.end() ? store_->find(name, shape, init) : added->second;
}

std::vector<std::string> StoreWith::names() const {
  std::vector<std::string> all = store_->names();
  for (const auto& entry : added_)
    all.insert(std::ranges::lower_bound(all, entry.first), entry.first);
  return all;
}

}  // namespace ringlet::formats
