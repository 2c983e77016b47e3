#include "ringlet/formats/original_layout.h"

#include <optional>
#include <set>
#include <utility>

namespace ringlet::formats {
namespace {

/// An original layer and the network's layers that its rows are divided among.
struct LayoutRow {
  const char* original;
  std::vector<const char*> own;
  /// Final modulations: the original has the shift first, diffusers the scale.
  bool swaps_halves = false;
};

std::vector<LayoutRow> flux_double_rows() {
  return {{"img_mod.lin", {"norm1.linear"}},
          {"txt_mod.lin", {"norm1_context.linear"}},
          {"img_attn.qkv", {"attn.to_q", "attn.to_k", "attn.to_v"}},
          {"txt_attn.qkv", {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"}},
          {"img_attn.proj", {"attn.to_out.0"}},
          {"txt_attn.proj", {"attn.to_add_out"}},
          {"img_attn.norm.query_norm", {"attn.norm_q"}},
          {"img_attn.norm.key_norm", {"attn.norm_k"}},
          {"txt_attn.norm.query_norm", {"attn.norm_added_q"}},
          {"txt_attn.norm.key_norm", {"attn.norm_added_k"}},
          {"img_mlp.0", {"ff.net.0.proj"}},
          {"img_mlp.2", {"ff.net.2"}},
          {"txt_mlp.0", {"ff_context.net.0.proj"}},
          {"txt_mlp.2", {"ff_context.net.2"}}};
}

std::vector<LayoutRow> flux_single_rows() {
  return {{"modulation.lin", {"norm.linear"}},
          {"linear1", {"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"}},
          {"linear2", {"proj_out"}},
          {"norm.query_norm", {"attn.norm_q"}},
          {"norm.key_norm", {"attn.norm_k"}}};
}

std::vector<LayoutRow> flux_rows() {
  return {{"img_in", {"x_embedder"}},
          {"txt_in", {"context_embedder"}},
          {"time_in.in_layer", {"time_text_embed.timestep_embedder.linear_1"}},
          {"time_in.out_layer", {"time_text_embed.timestep_embedder.linear_2"}},
          {"vector_in.in_layer", {"time_text_embed.text_embedder.linear_1"}},
          {"vector_in.out_layer", {"time_text_embed.text_embedder.linear_2"}},
          {"guidance_in.in_layer", {"time_text_embed.guidance_embedder.linear_1"}},
          {"guidance_in.out_layer", {"time_text_embed.guidance_embedder.linear_2"}},
          {"final_layer.adaLN_modulation.1", {"norm_out.linear"}, true},
          {"final_layer.linear", {"proj_out"}}};
}

/// XLabs keeps its adapters in attention processors, the picture's as 1 and the text's as 2.
std::vector<LayoutRow> xlabs_double_rows() {
  return {{"processor.qkv_lora1", {"attn.to_q", "attn.to_k", "attn.to_v"}},
          {"processor.qkv_lora2", {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"}},
          {"processor.proj_lora1", {"attn.to_out.0"}},
          {"processor.proj_lora2", {"attn.to_add_out"}}};
}

std::vector<LayoutRow> xlabs_single_rows() {
  return {{"processor.qkv_lora", {"attn.to_q", "attn.to_k", "attn.to_v"}},
          {"processor.proj_lora", {"proj_out"}}};
}

std::vector<LayoutRow> sd3_block_rows() {
  return {{"x_block.adaLN_modulation.1", {"norm1.linear"}},
          {"x_block.attn.qkv", {"attn.to_q", "attn.to_k", "attn.to_v"}},
          {"x_block.attn.proj", {"attn.to_out.0"}},
          {"x_block.attn.ln_q", {"attn.norm_q"}},
          {"x_block.attn.ln_k", {"attn.norm_k"}},
          {"x_block.attn2.qkv", {"attn2.to_q", "attn2.to_k", "attn2.to_v"}},
          {"x_block.attn2.proj", {"attn2.to_out.0"}},
          {"x_block.attn2.ln_q", {"attn2.norm_q"}},
          {"x_block.attn2.ln_k", {"attn2.norm_k"}},
          {"x_block.mlp.fc1", {"ff.net.0.proj"}},
          {"x_block.mlp.fc2", {"ff.net.2"}},
          {"context_block.attn.qkv", {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"}},
          {"context_block.attn.proj", {"attn.to_add_out"}},
          {"context_block.attn.ln_q", {"attn.norm_added_q"}},
          {"context_block.attn.ln_k", {"attn.norm_added_k"}},
          {"context_block.mlp.fc1", {"ff_context.net.0.proj"}},
          {"context_block.mlp.fc2", {"ff_context.net.2"}}};
}

/// The context's modulation: where the block makes nothing of the text any more, there is a scale
/// and a shift, which diffusers has in the other order.
LayoutRow sd3_context_modulation(bool last) {
  return {"context_block.adaLN_modulation.1", {"norm1_context.linear"}, last};
}

std::vector<LayoutRow> sd3_rows() {
  return {{"x_embedder.proj", {"pos_embed.proj"}},
          {"context_embedder", {"context_embedder"}},
          {"t_embedder.mlp.0", {"time_text_embed.timestep_embedder.linear_1"}},
          {"t_embedder.mlp.2", {"time_text_embed.timestep_embedder.linear_2"}},
          {"y_embedder.mlp.0", {"time_text_embed.text_embedder.linear_1"}},
          {"y_embedder.mlp.2", {"time_text_embed.text_embedder.linear_2"}},
          {"final_layer.adaLN_modulation.1", {"norm_out.linear"}, true},
          {"final_layer.linear", {"proj_out"}}};
}

/// What the tables are laid over: a network, or a checkpoint.
class LaidLayers {
 public:
  virtual ~LaidLayers() = default;

  /// Whether the block of a list, "joint_blocks" or "transformer_blocks", has any layer.
  virtual bool has_block(const std::string& original, const std::string& own,
                         std::int64_t number) const = 0;

  /// Whether there is this layer, by either name.
  virtual bool has(const std::string& original, const std::string& own) const = 0;

  /// The rows of each piece of a row of a table; none for a norm; nothing where it is not there.
  virtual std::optional<std::vector<std::int64_t>> pieces(const LayoutRow& row,
                                                          const std::string& original,
                                                          const std::string& own) const = 0;
};

std::string block_name(const std::string& list, std::int64_t number) {
  return list + "." + std::to_string(number) + ".";
}

class NetworkLayers final : public LaidLayers {
 public:
  explicit NetworkLayers(const nn::ModuleIndex& network) : network_(network) {}

  bool has_block(const std::string&, const std::string& own, std::int64_t number) const override {
    const std::string before = block_name(own, number);
    const auto first = network_.layers.lower_bound(before);
    return first != network_.layers.end() && first->first.starts_with(before);
  }
  bool has(const std::string&, const std::string& own) const override {
    return network_.layers.contains(own);
  }
  std::optional<std::vector<std::int64_t>> pieces(const LayoutRow& row, const std::string&,
                                                  const std::string& own) const override {
    std::vector<std::int64_t> rows;
    for (const char* path : row.own) {
      const auto found = network_.layers.find(own + path);
      if (found != network_.layers.end()) {
        rows.push_back(found->second->shape().front());
        continue;
      }
      const bool norm = network_.tensors.contains(own + path + ".weight") && row.own.size() == 1;
      return norm ? std::optional(rows) : std::nullopt;
    }
    return rows;
  }

 private:
  const nn::ModuleIndex& network_;
};

class CheckpointLayers final : public LaidLayers {
 public:
  CheckpointLayers(const nn::TensorStore& checkpoint, const std::string& prefix)
      : checkpoint_(checkpoint), prefix_(prefix) {
    for (const std::string& name : checkpoint.names())
      if (name.starts_with(prefix)) names_.insert(name.substr(prefix.size()));
  }

  bool has_block(const std::string& original, const std::string&,
                 std::int64_t number) const override {
    const std::string before = block_name(original, number);
    const auto first = names_.lower_bound(before);
    return first != names_.end() && first->starts_with(before);
  }
  bool has(const std::string& original, const std::string&) const override {
    return names_.contains(original + ".weight");
  }
  std::optional<std::vector<std::int64_t>> pieces(const LayoutRow& row, const std::string& original,
                                                  const std::string&) const override {
    std::vector<std::int64_t> rows;
    if (names_.contains(original + row.original + ".scale")) return rows;  // FLUX's norms
    const auto weight = checkpoint_.find(prefix_ + original + row.original + ".weight", {}, {});
    if (!weight || weight->dim() == 0) return std::nullopt;
    if (weight->dim() == 1) return row.own.size() == 1 ? std::optional(rows) : std::nullopt;
    rows.assign(row.own.size() - 1, weight->size(1));
    std::int64_t rest = weight->size(0);
    for (const std::int64_t width : rows) rest -= width;
    if (rest <= 0) return std::nullopt;
    rows.push_back(rest);
    return rows;
  }

 private:
  const nn::TensorStore& checkpoint_;
  std::string prefix_;
  std::set<std::string> names_;
};

class Layout {
 public:
  explicit Layout(const LaidLayers& layers) : laid_(layers) {}

  void add(const std::vector<LayoutRow>& rows, const std::string& original, const std::string& own,
           bool of_xlabs = false) {
    for (const LayoutRow& row : rows) add(row, original, own, of_xlabs);
  }

  /// The same for every block of a list.
  void add_blocks(const std::vector<LayoutRow>& rows, const std::string& original,
                  const std::string& own, bool of_xlabs = false) {
    for (std::int64_t i = 0; laid_.has_block(original, own, i); ++i)
      add(rows, block_name(original, i), block_name(own, i), of_xlabs);
  }

  void add(const LayoutRow& row, const std::string& original, const std::string& own,
           bool of_xlabs) {
    const auto pieces = laid_.pieces(row, original, own);
    if (!pieces) return;
    OriginalLayer layer{.name = original + row.original, .of_xlabs = of_xlabs};
    if (pieces->empty()) layer.pieces.push_back({own + row.own.front(), {}});
    for (std::size_t i = 0; i < pieces->size(); ++i) {
      layer.pieces.push_back({own + row.own[i], {{layer.rows, (*pieces)[i]}}});
      layer.rows += (*pieces)[i];
    }
    if (const std::int64_t half = layer.rows / 2; row.swaps_halves)
      layer.pieces.front().rows = {{half, half}, {0, half}};
    layers_.push_back(std::move(layer));
  }

  std::vector<OriginalLayer> take() { return std::move(layers_); }

 private:
  const LaidLayers& laid_;
  std::vector<OriginalLayer> layers_;
};

constexpr const char* kDouble = "transformer_blocks";
constexpr const char* kSingle = "single_transformer_blocks";

std::vector<OriginalLayer> flux_layers(const LaidLayers& layers) {
  Layout layout(layers);
  layout.add_blocks(flux_double_rows(), "double_blocks", kDouble);
  layout.add_blocks(flux_single_rows(), "single_blocks", kSingle);
  layout.add(flux_rows(), "", "");
  layout.add_blocks(xlabs_double_rows(), "double_blocks", kDouble, /*of_xlabs=*/true);
  layout.add_blocks(xlabs_single_rows(), "single_blocks", kSingle, /*of_xlabs=*/true);
  return layout.take();
}

std::vector<OriginalLayer> sd3_layers(const LaidLayers& layers) {
  Layout layout(layers);
  layout.add_blocks(sd3_block_rows(), "joint_blocks", kDouble);
  for (std::int64_t i = 0; layers.has_block("joint_blocks", kDouble, i); ++i) {
    const std::string original = block_name("joint_blocks", i), own = block_name(kDouble, i);
    const bool last =
        !layers.has(original + "context_block.mlp.fc1", own + "ff_context.net.0.proj");
    layout.add(sd3_context_modulation(last), original, own, /*of_xlabs=*/false);
  }
  layout.add(sd3_rows(), "", "");
  return layout.take();
}

std::vector<OriginalLayer> layers_of(TransformerFamily family, const LaidLayers& layers) {
  switch (family) {
    case TransformerFamily::stable_diffusion_3:
      return sd3_layers(layers);
    case TransformerFamily::flux:
      return flux_layers(layers);
    case TransformerFamily::none:
      return {};
  }
  return {};
}

}  // namespace

TransformerFamily transformer_family(const nn::ModuleIndex& network) {
  const auto has = [&](const char* name) { return network.layers.contains(name); };
  if (has("single_transformer_blocks.0.proj_mlp")) return TransformerFamily::flux;
  if (!has("transformer_blocks.0.attn.add_q_proj")) return TransformerFamily::none;
  if (has("x_embedder")) return TransformerFamily::flux;
  return has("pos_embed.proj") ? TransformerFamily::stable_diffusion_3 : TransformerFamily::none;
}

TransformerFamily transformer_family(const nn::TensorStore& checkpoint, const std::string& prefix) {
  const CheckpointLayers layers(checkpoint, prefix);
  const auto has = [&](const char* name) { return layers.has(name, ""); };
  if (has("joint_blocks.0.x_block.attn.qkv")) return TransformerFamily::stable_diffusion_3;
  if (has("double_blocks.0.img_attn.qkv") || has("single_blocks.0.linear1"))
    return TransformerFamily::flux;
  return TransformerFamily::none;
}

const char* name_of(TransformerFamily family) {
  switch (family) {
    case TransformerFamily::stable_diffusion_3:
      return "Stable Diffusion 3";
    case TransformerFamily::flux:
      return "FLUX";
    case TransformerFamily::none:
      return "";
  }
  return "";
}

std::vector<OriginalLayer> original_layers(const nn::ModuleIndex& network) {
  return layers_of(transformer_family(network), NetworkLayers(network));
}

std::vector<OriginalLayer> original_layers(const nn::TensorStore& checkpoint,
                                           const std::string& prefix) {
  return layers_of(transformer_family(checkpoint, prefix), CheckpointLayers(checkpoint, prefix));
}

}  // namespace ringlet::formats
