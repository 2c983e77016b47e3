#include "ringlet/formats/ldm/ldm_text.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/ldm/ldm_names.h"
#include "ringlet/nn/text_model_level.h"

namespace ringlet::formats {
namespace {

/// Heads of every published CLIP text encoder are 64 wide.
constexpr std::int64_t kHeadWidth = 64;

at::Tensor need(const nn::TensorStore& store, const std::string& name) {
  auto tensor = store.find(name, {}, {});
  if (!tensor || tensor->dim() == 0)
    throw Error(ErrorCode::bad_format, store.description(), "tensor \"" + name + "\" is missing",
                "the file holds no complete text encoder");
  return *tensor;
}

Json config_json(const at::Tensor& tokens, const at::Tensor& positions, const at::Tensor& fc1,
                 std::int64_t layers, const char* activation) {
  const std::int64_t hidden = tokens.size(-1);
  const std::int64_t vocabulary = tokens.size(0);
  return {{"architectures", {"CLIPTextModel"}},
          {"vocab_size", vocabulary},
          {"hidden_size", hidden},
          {"intermediate_size", fc1.size(0)},
          {"num_hidden_layers", layers},
          {"num_attention_heads", std::max<std::int64_t>(1, hidden / kHeadWidth)},
          {"max_position_embeddings", positions.size(0)},
          {"hidden_act", activation},
          // <|endoftext|> is the last entry of the CLIP vocabulary.
          {"eos_token_id", vocabulary - 1}};
}

/// The layer's own name in transformers for what follows "resblocks.N." in OpenCLIP.
std::optional<std::string> open_clip_layer_name(const std::string& rest) {
  return replace_prefix(rest, {{"ln_1.", "layer_norm1."},
                               {"ln_2.", "layer_norm2."},
                               {"mlp.c_fc.", "mlp.fc1."},
                               {"mlp.c_proj.", "mlp.fc2."},
                               {"attn.out_proj.", "self_attn.out_proj."}});
}

void add_open_clip_layer(const nn::TensorStore& store, const std::string& name,
                         const std::string& layer, const std::string& rest,
                         std::map<std::string, TensorOrigin>& origins) {
  static constexpr std::array kProjections = {"q_proj.", "k_proj.", "v_proj."};
  const std::string target = "text_model.encoder.layers." + layer + ".";
  for (const auto& [from, to] :
       {std::pair{"attn.in_proj_weight", "weight"}, std::pair{"attn.in_proj_bias", "bias"}}) {
    if (rest != from) continue;
    const std::int64_t rows = need(store, name).size(0) / std::ssize(kProjections);
    for (std::int64_t i = 0; i < std::ssize(kProjections); ++i)
      origins[target + "self_attn." + kProjections[static_cast<std::size_t>(i)] + to] = {
          .name = name, .rows = {{i * rows, rows}}};
    return;
  }
  const auto translated = open_clip_layer_name(rest);
  origins[translated ? target + *translated : name] = {.name = name};
}

}  // namespace

LdmTextEncoder read_clip_text(const nn::TensorStore& store, const std::string& prefix) {
  // NovelAI's checkpoints of 2022, and files made with transformers 5.6, leave the level out.
  const bool flat = store.find(prefix + "embeddings.token_embedding.weight", {}, {}).has_value();
  const std::string model = prefix + (flat ? "" : "text_model.");
  std::int64_t layers = 0;
  const auto fc1 = [&](std::int64_t layer) {
    return model + "encoder.layers." + std::to_string(layer) + ".mlp.fc1.weight";
  };
  while (store.find(fc1(layers), {}, {})) ++layers;
  LdmTextEncoder encoder;
  encoder.config = config_json(need(store, model + "embeddings.token_embedding.weight"),
                               need(store, model + "embeddings.position_embedding.weight"),
                               need(store, fc1(0)), layers, "quick_gelu");
  for (const std::string& name : store.names())
    if (name.starts_with(prefix) && !name.ends_with(".position_ids"))
      encoder.origins[nn::with_text_model_level(name.substr(prefix.size()))] = {.name = name};
  return encoder;
}

LdmTextEncoder read_open_clip_text(const nn::TensorStore& store, const std::string& prefix,
                                   bool drop_last) {
  const std::string blocks = prefix + "transformer.resblocks.";
  std::int64_t layers = 0;
  while (store.find(blocks + std::to_string(layers) + ".ln_1.weight", {}, {})) ++layers;
  LdmTextEncoder encoder;
  encoder.config = config_json(
      need(store, prefix + "token_embedding.weight"), need(store, prefix + "positional_embedding"),
      need(store, blocks + "0.mlp.c_fc.weight"), drop_last ? layers - 1 : layers, "gelu");
  const std::string last = std::to_string(layers - 1);
  const NameTable fixed = {
      {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
      {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
      {"ln_final.", "text_model.final_layer_norm."}};
  for (const std::string& name : store.names()) {
    if (!name.starts_with(prefix)) continue;
    const std::string rest = name.substr(prefix.size());
    if (rest == "logit_scale" || rest == "text_projection") continue;
    if (!name.starts_with(blocks)) {
      encoder.origins[replace_prefix(rest, fixed).value_or(name)] = {.name = name};
      continue;
    }
    const std::size_t dot = name.find('.', blocks.size());
    const std::string layer = name.substr(blocks.size(), dot - blocks.size());
    if (drop_last && layer == last) continue;
    if (dot != std::string::npos)
      add_open_clip_layer(store, name, layer, name.substr(dot + 1), encoder.origins);
  }
  if (!drop_last) {
    encoder.config["architectures"] = {"CLIPTextModelWithProjection"};
    encoder.config["projection_dim"] = need(store, prefix + "text_projection").size(1);
    encoder.origins["text_projection.weight"] = {.name = prefix + "text_projection",
                                                 .transpose = true};
  }
  return encoder;
}

}  // namespace ringlet::formats
