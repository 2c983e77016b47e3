// What stands beside every method: scales, kept weights, norms; PEFT's fields of all methods.
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {

PartFormat common_format() {
  return {
      .endings = {{".alpha", "alpha", kShared, Telling::setting},
                  {".base_layer.weight", "base_weight", kPeftNames, Telling::little},
                  {".w_norm", "w_norm", kShared, Telling::little},
                  {".b_norm", "b_norm", kShared, Telling::little}},
      .peft = {.fields = {
                   // which layers, which library, how it was trained
                   "peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
                   "inference_mode", "peft_version", "target_modules", "exclude_modules",
                   "layers_to_transform", "layers_pattern", "module_dropout", "rank_dropout",
                   "rank_dropout_scale", "megatron_core", "init_weights", "ensure_weight_tying",
                   // of 2023: merged while evaluating; how a start is computed
                   "merge_weights", "runtime_config",
                   // how the network stores a layer's weight: PEFT sets it by the layer's class
                   // (true for GPT-2's Conv1D), whatever the file says; the factors are the same
                   // either way
                   "fan_in_fan_out",
                   // read with every method
                   "r", "alpha", "rank_pattern", "alpha_pattern"}}};
}

}  // namespace ringlet::formats
