// AdaLoRA (PEFT), which is read as LoRA.
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {
namespace {

void read_adalora(LayerReader& layer) {
  layer.check_type("ADALORA");
  const PeftConfig& config = *layer.context().config;
  const at::Tensor& down = layer.take("down");
  const at::Tensor& scale = layer.take("rank_scale");
  layer.rank_of("down", down, 1);
  const std::int64_t rank = down.size(0), first_rank = config.integer("init_r", 12);
  if (first_rank < 1)
    throw Error(ErrorCode::unsupported, config.where(),
                "init_r is " + std::to_string(first_rank) + ", not a rank");
  const double initial = static_cast<double>(first_rank) + 1e-5;
  if (scale.numel() != rank) throw layer.bad("rank_scale", "does not have one number per rank");
  layer.give("residual.down", down.to(at::kFloat).flatten(1) * scale.to(at::kFloat).view({-1, 1}));
  layer.give("up", "residual.up");
  // AdaLoRA's scale is alpha over the first rank, whatever rank is left.
  const double alpha = layer.alpha(rank) * static_cast<double>(rank) / initial;
  layer.decide("AdaLoRA becomes LoRA: its diagonal goes into the first factor");
  layer.add("lora", {{"rank", rank}, {"alpha", alpha}});
}

}  // namespace

PartFormat adalora_format() {
  return {.shown = "AdaLoRA",
          .endings = {{".lora_E", "rank_scale", kPeftNames}},
          .peft = {.types = {"ADALORA"},
                   .fields = {"init_r", "beta1", "beta2", "deltaT", "tinit", "tfinal", "total_step",
                              "orth_reg_weight", "target_r"}},
          .recognises = [](const LayerTensors& layer) { return layer.has("rank_scale"); },
          .read = read_adalora};
}

}  // namespace ringlet::formats
