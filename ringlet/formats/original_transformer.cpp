#include "ringlet/formats/original_transformer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/formats/renamed_store.h"

namespace ringlet::formats {
namespace {

constexpr std::array kPrefixes = {"model.diffusion_model.", "diffusion_model.", ""};

/// Networks with some of FLUX's layers, by what only they have.
constexpr std::array<std::pair<const char*, const char*>, 4> kRelatives = {
    {{"distilled_guidance_layer.", "Chroma"},
     {"double_stream_modulation_img.", "FLUX.2"},
     {"txt_in.individual_token_refiner.", "HunyuanVideo"},
     {"vision_in.", "HunyuanVideo"}}};

void refuse_relatives(const nn::TensorStore& checkpoint, const std::string& prefix) {
  for (const std::string& name : checkpoint.names())
    for (const auto& [mark, program] : kRelatives)
      if (name.starts_with(prefix + mark))
        throw Error(ErrorCode::unsupported, checkpoint.description(),
                    "the tensor \"" + name + "\" says that this is " + program +
                        ", not FLUX.1 or Stable Diffusion 3",
                    "use a checkpoint of FLUX.1 dev or schnell, or of Stable Diffusion 3 or 3.5");
}

/// The network's tensors by name, and where each comes from. `stored`: as_stored of the checkpoint.
std::map<std::string, TensorOrigin> transformer_origins(const nn::TensorStore& checkpoint,
                                                        const nn::TensorStore& stored,
                                                        const OriginalTransformer& found) {
  std::map<std::string, const OriginalLayer*> by_name;
  const std::vector<OriginalLayer> layers = original_layers(stored, found.prefix);
  for (const OriginalLayer& layer : layers)
    if (!layer.of_xlabs) by_name.emplace(layer.name, &layer);

  std::map<std::string, TensorOrigin> origins;
  for (const std::string& name : checkpoint.names()) {
    if (!name.starts_with(found.prefix) || (found.prefix.empty() && is_other_part(name))) continue;
    const std::string rest = name.substr(found.prefix.size());
    const std::size_t dot = std::min(rest.rfind('.'), rest.size());
    const auto layer = by_name.find(rest.substr(0, dot));
    const std::string kind = rest.substr(dot);
    if (layer == by_name.end() || (kind != ".weight" && kind != ".bias" && kind != ".scale")) {
      origins[rest == "pos_embed" ? "pos_embed.pos_embed" : name] = {.name = name};
      continue;
    }
    for (const LayoutPiece& piece : layer->second->pieces)
      origins[piece.path + (kind == ".scale" ? ".weight" : kind)] = {
          .name = name, .rows = layer->second->is_plain() ? std::vector<RowRange>() : piece.rows};
  }
  return origins;
}

/// Sizes of a network's tensors.
class NetworkShapes {
 public:
  explicit NetworkShapes(const nn::TensorStore& network) : network_(network) {}

  bool has(const std::string& name) const { return network_.find(name, {}, {}).has_value(); }
  std::int64_t size(const std::string& name, std::int64_t axis) const {
    const auto tensor = network_.find(name, {}, {});
    if (!tensor || tensor->dim() <= axis)
      throw Error(ErrorCode::bad_format, network_.description(),
                  "there is no tensor for \"" + name + "\" of the transformer" +
                      (tensor ? " with " + std::to_string(axis + 1) + " axes" : ""),
                  "the file is incomplete; download it again");
    return tensor->size(axis);
  }
  std::int64_t rows(const std::string& layer) const { return size(layer + ".weight", 0); }
  std::int64_t columns(const std::string& layer) const { return size(layer + ".weight", 1); }
  std::int64_t blocks(const std::string& list, const std::string& layer) const {
    const std::string begin = list + ".", end = "." + layer + ".weight";
    std::int64_t count = 0;
    while (has(begin + std::to_string(count) + end)) ++count;
    return count;
  }

 private:
  const nn::TensorStore& network_;
};

/// The width of a head by its norm, else the usual one.
std::int64_t head_width(const NetworkShapes& shapes, const std::vector<const char*>& norms,
                        std::int64_t width) {
  constexpr std::int64_t kUsual = 64;
  for (const char* norm : norms)
    if (shapes.has(norm)) return std::max<std::int64_t>(1, shapes.size(norm, 0));
  return width % kUsual == 0 ? kUsual : width;
}

Json sd3_config_json(const NetworkShapes& shapes) {
  const std::int64_t layers = shapes.blocks("transformer_blocks", "attn.to_q");
  std::vector<std::int64_t> dual;
  for (std::int64_t i = 0; i < layers; ++i)
    if (shapes.has("transformer_blocks." + std::to_string(i) + ".attn2.to_q.weight"))
      dual.push_back(i);
  const std::int64_t width = shapes.rows("pos_embed.proj");
  const std::int64_t patch = std::max<std::int64_t>(1, shapes.size("pos_embed.proj.weight", 2));
  const char* const norm = "transformer_blocks.0.attn.norm_q.weight";
  const std::int64_t head = head_width(shapes, {norm}, width);
  // Tokens along a side of the table, as published where the file lacks it; and the latents of the
  // pictures that all have been trained with first.
  constexpr std::int64_t kSide = 192, kSideOfMedium = 384, kSampleSize = 128;
  std::int64_t side = dual.empty() ? kSide : kSideOfMedium;
  if (shapes.has("pos_embed.pos_embed"))
    side = std::llround(std::sqrt(static_cast<double>(shapes.size("pos_embed.pos_embed", 1))));
  return {{"_class_name", "SD3Transformer2DModel"},
          {"sample_size", std::min(kSampleSize, std::max<std::int64_t>(1, side) * patch)},
          {"patch_size", patch},
          {"in_channels", shapes.columns("pos_embed.proj")},
          {"out_channels", shapes.rows("proj_out") / (patch * patch)},
          {"num_layers", layers},
          {"num_attention_heads", width / head},
          {"attention_head_dim", head},
          {"joint_attention_dim", shapes.columns("context_embedder")},
          {"caption_projection_dim", width},
          {"pooled_projection_dim", shapes.columns("time_text_embed.text_embedder.linear_1")},
          {"pos_embed_max_size", side},
          {"dual_attention_layers", dual},
          {"qk_norm", shapes.has(norm) ? Json("rms_norm") : Json(nullptr)}};
}

Json flux_config_json(const NetworkShapes& shapes) {
  const std::int64_t width = shapes.rows("x_embedder");
  const std::int64_t head = head_width(
      shapes,
      {"transformer_blocks.0.attn.norm_q.weight", "single_transformer_blocks.0.attn.norm_q.weight"},
      width);
  // FLUX.1 divides 128 into 16, 56 and 56; small networks keep the shares, in even numbers.
  const std::int64_t along = head * 7 / 32 * 2;
  return {{"_class_name", "FluxTransformer2DModel"},
          {"patch_size", 1},
          {"in_channels", shapes.columns("x_embedder")},
          {"out_channels", shapes.rows("proj_out")},
          {"num_layers", shapes.blocks("transformer_blocks", "attn.to_q")},
          {"num_single_layers", shapes.blocks("single_transformer_blocks", "attn.to_q")},
          {"num_attention_heads", width / head},
          {"attention_head_dim", head},
          {"joint_attention_dim", shapes.columns("context_embedder")},
          {"pooled_projection_dim", shapes.columns("time_text_embed.text_embedder.linear_1")},
          {"guidance_embeds", shapes.has("time_text_embed.guidance_embedder.linear_1.weight")},
          {"axes_dims_rope", {head - 2 * along, along, along}}};
}

}  // namespace

bool is_other_part(const std::string& tensor) {
  static constexpr std::array kOthers = {
      "text_encoders.", "first_stage_model.", "conditioner.",          "cond_stage_model.",
      "vae.",           "model_ema.",         "model.diffusion_model."};
  return std::ranges::any_of(kOthers,
                             [&](const char* prefix) { return tensor.starts_with(prefix); });
}

std::optional<OriginalTransformer> find_original_transformer(const nn::TensorStore& checkpoint) {
  for (const char* prefix : kPrefixes)
    if (const TransformerFamily family = transformer_family(checkpoint, prefix);
        family != TransformerFamily::none)
      return OriginalTransformer{family, prefix};
  return std::nullopt;
}

SingleFileComponent open_original_transformer(
    const std::shared_ptr<const nn::TensorStore>& checkpoint, const OriginalTransformer& found) {
  refuse_relatives(*checkpoint, found.prefix);
  const std::shared_ptr<const nn::TensorStore> stored = as_stored(checkpoint);
  const auto origins = transformer_origins(*checkpoint, *stored, found);
  const RenamedStore network(stored, origins);
  const NetworkShapes shapes(network);
  return {
      found.family == TransformerFamily::flux ? flux_config_json(shapes) : sd3_config_json(shapes),
      std::make_shared<RenamedStore>(checkpoint, origins)};
}

}  // namespace ringlet::formats
