#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/nonzero.h>

#include "ringlet/adapt/build.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/fused_rows.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

/// "pissa" or "olora" where PEFT's start changes the layer's weight.
std::string start_from(const LayerReader& layer) {
  const PeftConfig* const config = layer.context().config;
  if (config == nullptr) return "";
  const std::string word = config->word("init_lora_weights", "");
  if (word.starts_with("pissa")) return "pissa";
  if (word == "olora") return word;
  for (const char* harmless : {"", "gaussian", "orthogonal", "eva", "mica", "lora_ga"})
    if (word == harmless) return "";
  throw Error(ErrorCode::unsupported, config->where(),
              "init_lora_weights is \"" + shown(word) +
                  "\", which may change the model's weight and is unsupported",
              "merge the adapter with PEFT and use the merged model");
}

/// PEFT starts such adapters again when it loads them, and so the start has to be found again.
void give_start(LayerReader& layer, const adapt::PartSpec& lora) {
  const std::string& prefix = layer.file().prefix;
  adapt::FactorTable factors;
  const auto fresh = adapt::build_adapter(adapt::make_method({lora}), *layer.context().layer,
                                          factors, Random(0), prefix);
  for (const auto& [name, tensor] : fresh->constants()) {
    if (!tensor.isfinite().all().item<bool>())
      throw Error(ErrorCode::non_finite, prefix,
                  "has no finite start of \"" + lora.word("init") + "\" with alpha " +
                      exact_number(lora.number("alpha")),
                  "the configuration is damaged, or the model's weight not finite");
    layer.give(name, tensor);
  }
  layer.decide(lora.word("init") +
               ": the start is taken from the model's own weight, as PEFT does");
}

void read_factors(LayerReader& layer) {
  layer.check_type("LORA");
  const at::Tensor& down = layer.give("down", "residual.down");
  const at::Tensor& up = layer.give("up", "residual.up");
  const std::int64_t rank = layer.rank_of("down", down, 0);
  if (layer.rank_of("up", up, 1) != rank)
    throw layer.bad("up", "has " + std::to_string(up.size(1)) + " ranks, the other factor " +
                              std::to_string(rank));
  layer.check_rank("down", rank);
  adapt::Options options = {{"rank", rank}};
  if (layer.has("mid")) {
    if (layer.shape().positions() == 1)
      throw layer.bad("mid", "is a core for a kernel, which the layer lacks");
    layer.give("mid", "residual.mid");
    options["tucker"] = "yes";
  }
  const bool root = layer.configured("use_rslora");
  if (root) {
    options["scaling"] = "sqrt";
    layer.decide("rsLoRA: scale = alpha / sqrt(rank)");
  }
  const std::string start = start_from(layer);
  const double alpha = layer.alpha(rank);
  options["alpha"] = alpha;
  if (!start.empty()) {
    options["init"] = start;
    give_start(layer, layer.part("lora", options));
  }
  layer.add("lora", std::move(options));
  const bool bias = layer.configured("lora_bias") || layer.has("up_bias");
  if (bias) layer.give("up_bias", "bias.d");
  read_magnitude(layer);
  const auto ranks = static_cast<double>(rank);
  if (bias) layer.add("bias", {{"scale", alpha / (root ? std::sqrt(ranks) : ranks)}});
}

/// PEFT's LoRA of a table of [count, width]: (B A)^t is added to it.
void read_table(LayerReader& layer) {
  layer.check_type("LORA");
  const adapt::LayerShape& shape = layer.shape();
  const at::Tensor &a = layer.take("table_down"), &b = layer.take("table_up");
  const std::int64_t rank = layer.rank_of("table_down", a, 0);
  if (a.dim() != 2 || b.dim() != 2 || b.size(1) != rank || a.size(1) != shape.out ||
      b.size(0) != shape.in || shape.convolution)
    throw layer.bad("table_down", "and its partner do not fit a table of " +
                                      std::to_string(shape.out) + "x" + std::to_string(shape.in));
  layer.check_rank("table_down", rank);
  if (!start_from(layer).empty() || layer.configured("use_dora"))
    throw Error(ErrorCode::unsupported, layer.name("table_down"),
                "is of a table with DoRA or a start from the weight, which is unsupported",
                "merge the adapter with PEFT and use the merged model");
  layer.give("residual.up", a.t().contiguous());
  layer.give("residual.down", b.t().contiguous());
  layer.add("lora", {{"rank", rank},
                     {"alpha", layer.alpha(rank)},
                     {"scaling", layer.configured("use_rslora") ? "sqrt" : "rank"}});
}

/// PEFT and diffusers scale the bias as they scale the factors; ComfyUI adds a difference.
void write_lora_bias(LayerWriter& layer, double scale) {
  const double own = layer.bias()->number("scale");
  if (layer.comfyui()) return layer.put("diff_b", layer.numbers("bias.d") * own);
  const bool same = std::abs(own - scale) <= 1e-12 * scale;
  if (layer.lycoris() || !same || layer.magnitude() != nullptr) return layer.refuse_method();
  layer.put("up_bias", "bias.d");
  layer.config("lora_bias") = true;
}

void write_lora(LayerWriter& layer) {
  const double scale = write_low_rank(layer, "down", "up");
  if (layer.bias() != nullptr) write_lora_bias(layer, scale);
  write_magnitude(layer);
  if (layer.magnitude() != nullptr && layer.peft()) layer.config("use_dora") = true;
}

/// Rows of a fused layer have its "down" and their rows of "up". Ranks that are zero in these rows
/// and not in others are left out: so files are written whose pieces had factors of their own.
void take_lora_rows(RowTaker& layer) {
  const at::Tensor up = layer.rows_of("up"), down = layer.use("down");
  if (layer.has("up_bias")) layer.take("up_bias");
  if (layer.has("mid")) layer.keep("mid");
  const at::Tensor& whole = layer.use("up");
  const bool plain = up.dim() == 2 && down.dim() == 2 && up.size(1) == down.size(0) &&
                     !layer.has("mid") && !layer.keeps_rank();
  const auto is_used = [](const at::Tensor& factor) { return factor.ne(0).any(0); };
  const at::Tensor kept =
      plain ? at::nonzero(is_used(up).logical_or(is_used(whole).logical_not())).squeeze(1)
            : at::Tensor();
  if (!plain || kept.numel() == 0 || kept.numel() == up.size(1)) {
    layer.put("up", up);
    layer.put("down", down);
    return;
  }
  layer.put("up", up.index_select(1, kept));
  layer.put("down", down.index_select(0, kept));
  if (layer.has("alpha"))  // alpha / rank stays
    layer.put("alpha", layer.use("alpha").to(at::kDouble) *
                           (static_cast<double>(kept.numel()) / static_cast<double>(up.size(1))));
}

/// One "down" for all where the pieces have the same; else the ranks add up, each zero in the rows
/// of other pieces.
void join_lora_rows(RowJoiner& layer) {
  if (layer.any("mid") || layer.first("up").dim() != 2)
    return layer.refuse("has no form for convolutions among the parts of one layer");
  const LayerWriting& one = *layer.adapted().front().first;
  if (layer.equal("down") && layer.equal_scale()) {
    layer.put("down", layer.first("down"));
    layer.put("up", layer.stacked("up"));
    return layer.put_scale(one.alpha, one.rank);
  }
  const at::Tensor down = layer.all_ranks("down");
  const auto ranks = static_cast<double>(down.size(0));
  layer.put("down", down);
  layer.put("up", layer.block_diagonal("up"));
  layer.put_scale(one.alpha / one.rank * ranks, ranks);
}

std::vector<Ending> endings() {
  constexpr Spellings kBoth = kPeftNames | kDotted;
  return {{".lora_A.weight", "down", kBoth},
          {".lora_B.weight", "up", kBoth},
          {".lora_B.bias", "up_bias", kBoth},
          {".lora_A", "down", kBoth},
          {".lora_B", "up", kBoth},
          {".lora_A.default.weight", "down", kDotted},
          {".lora_B.default.weight", "up", kDotted},
          {".lora_linear_layer.down.weight", "down", kDotted},
          {".lora_linear_layer.up.weight", "up", kDotted},
          {".lora.down.weight", "down", kDotted},
          {".lora.up.weight", "up", kDotted},
          {".down.weight", "down", kDotted, Telling::method, "_lora"},
          {".up.weight", "up", kDotted, Telling::method, "_lora"},
          {".lora_embedding_A", "table_down", kPeftNames},
          {".lora_embedding_B", "table_up", kPeftNames},
          {".lora_down.weight", "down", kShared},
          {".lora_up.weight", "up", kShared},
          {".lora_mid.weight", "mid", kShared},
          {":down", "down", kCloneofsimo},
          {":up", "up", kCloneofsimo}};
}

}  // namespace

double write_low_rank(LayerWriter& layer, const char* down_name, const char* up_name) {
  const adapt::PartSpec& part = *layer.residual();
  at::Tensor down = layer.numbers("residual.down"), up = layer.numbers("residual.up");
  double rank = part.number("rank"), alpha = part.number("alpha");
  const bool root = part.word("scaling") == "sqrt";
  const double scale = alpha / (root ? std::sqrt(rank) : rank);
  if (layer.has("residual.down_start")) {
    down = at::cat({down, -layer.numbers("residual.down_start")});
    up = at::cat({up, layer.numbers("residual.up_start")}, 1);
    rank *= 2.0;
    alpha = scale * rank;
  } else if (root) {
    if (layer.peft())
      layer.config("use_rslora") = true;
    else
      alpha *= std::sqrt(rank);
  }
  if (layer.has("residual.mid")) {
    if (layer.lycoris())
      layer.put("mid", "residual.mid");
    else
      down = at::einsum("ijkl,jc->ickl", {layer.numbers("residual.mid"), down});
  }
  if (layer.shape().convolution) {
    if (down.dim() == 2) down = down.unsqueeze(-1).unsqueeze(-1);
    up = up.unsqueeze(-1).unsqueeze(-1);
  }
  layer.put(down_name, down);
  layer.put(up_name, up);
  layer.put_scale(alpha, rank);
  return scale;
}

PartFormat lora_format() {
  return {.part = "lora",
          .shown = "LoRA",
          .endings = endings(),
          .peft = {.types = {"LORA"},
                   .fields = {"lora_dropout", "qalora_group_size", "loftq_config", "eva_config",
                              "corda_config", "lora_ga_config", "lora_alpha", "use_rslora",
                              "lora_bias", "init_lora_weights"},
                   .alpha_field = "lora_alpha"},
          .held_by = {AdapterFormat::peft, AdapterFormat::diffusers, AdapterFormat::kohya,
                      AdapterFormat::lycoris, AdapterFormat::comfyui},
          .recognises =
              [](const LayerTensors& layer) {
                return layer.has("down") || layer.has("up") || layer.has("table_down") ||
                       layer.has("table_up");
              },
          .read =
              [](LayerReader& layer) {
                if (layer.has("down") || layer.has("up")) return read_factors(layer);
                read_table(layer);
              },
          .write = write_lora,
          .take_rows = take_lora_rows,
          .join_rows = join_lora_rows};
}

}  // namespace ringlet::formats
