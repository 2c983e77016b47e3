#include "ringlet/formats/original_layout.h"

#include <numeric>
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

class Layout {
 public:
  explicit Layout(const nn::ModuleIndex& network) : network_(network) {}

  void add(const std::vector<LayoutRow>& rows, const std::string& original, const std::string& own,
           bool of_xlabs = false) {
    for (const LayoutRow& row : rows) add(row, original, own, of_xlabs);
  }

  /// The same for every block of a list.
  void add_blocks(const std::vector<LayoutRow>& rows, const std::string& original,
                  const std::string& own, bool of_xlabs = false) {
    for (std::int64_t i = 0; has_block(own, i); ++i) {
      const std::string number = "." + std::to_string(i) + ".";
      add(rows, original + number, own + number, of_xlabs);
    }
  }

  bool has_block(const std::string& list, std::int64_t i) const {
    const std::string before = list + "." + std::to_string(i) + ".";
    const auto first = network_.layers.lower_bound(before);
    return first != network_.layers.end() && first->first.starts_with(before);
  }

  void add(const LayoutRow& row, const std::string& original, const std::string& own,
           bool of_xlabs) {
    OriginalLayer layer{.name = original + row.original, .of_xlabs = of_xlabs};
    for (const char* path : row.own) {
      const auto found = network_.layers.find(own + path);
      if (found == network_.layers.end()) {
        const bool norm = network_.tensors.contains(own + path + ".weight");
        if (!norm || row.own.size() > 1) return;
        layer.pieces.push_back({own + path, {}});
        continue;
      }
      const std::int64_t rows = found->second->shape().front();
      layer.pieces.push_back({own + path, {{layer.rows, rows}}});
      layer.rows += rows;
    }
    if (const std::int64_t half = layer.rows / 2; row.swaps_halves)
      layer.pieces.front().rows = {{half, half}, {0, half}};
    layers_.push_back(std::move(layer));
  }

  std::vector<OriginalLayer> take() { return std::move(layers_); }

 private:
  const nn::ModuleIndex& network_;
  std::vector<OriginalLayer> layers_;
};

constexpr const char* kDouble = "transformer_blocks";
constexpr const char* kSingle = "single_transformer_blocks";

std::vector<OriginalLayer> flux_layers(const nn::ModuleIndex& network) {
  Layout layout(network);
  layout.add_blocks(flux_double_rows(), "double_blocks", kDouble);
  layout.add_blocks(flux_single_rows(), "single_blocks", kSingle);
  layout.add(flux_rows(), "", "");
  layout.add_blocks(xlabs_double_rows(), "double_blocks", kDouble, /*of_xlabs=*/true);
  layout.add_blocks(xlabs_single_rows(), "single_blocks", kSingle, /*of_xlabs=*/true);
  return layout.take();
}

std::vector<OriginalLayer> sd3_layers(const nn::ModuleIndex& network) {
  Layout layout(network);
  layout.add_blocks(sd3_block_rows(), "joint_blocks", kDouble);
  for (std::int64_t i = 0; layout.has_block(kDouble, i); ++i) {
    const std::string number = "." + std::to_string(i) + ".";
    const bool last = !network.layers.contains(kDouble + number + "ff_context.net.0.proj");
    layout.add(sd3_context_modulation(last), "joint_blocks" + number, kDouble + number,
               /*of_xlabs=*/false);
  }
  layout.add(sd3_rows(), "", "");
  return layout.take();
}

}  // namespace

std::int64_t count_of(const std::vector<RowRange>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0},
                         [](std::int64_t sum, const RowRange& range) { return sum + range.count; });
}

TransformerFamily transformer_family(const nn::ModuleIndex& network) {
  const auto has = [&](const char* name) { return network.layers.contains(name); };
  if (has("single_transformer_blocks.0.proj_mlp")) return TransformerFamily::flux;
  if (!has("transformer_blocks.0.attn.add_q_proj")) return TransformerFamily::none;
  if (has("x_embedder")) return TransformerFamily::flux;
  return has("pos_embed.proj") ? TransformerFamily::stable_diffusion_3 : TransformerFamily::none;
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
  switch (transformer_family(network)) {
    case TransformerFamily::stable_diffusion_3:
      return sd3_layers(network);
    case TransformerFamily::flux:
      return flux_layers(network);
    case TransformerFamily::none:
      return {};
  }
  return {};
}

}  // namespace ringlet::formats
