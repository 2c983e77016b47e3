// adapter_config.json: which fields matter, and which pattern counts for a layer.
#include "ringlet/formats/peft_config.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::formats {
namespace {

PeftConfig config(const std::string& text) {
  return {parse_ordered_json(text, "config"), "config"};
}

double alpha(const std::string& patterns, const std::string& path) {
  return config(R"({"alpha_pattern":)" + patterns + "}").for_layer("alpha_pattern", path, 1.0);
}

TEST(PeftConfig, TheFirstPatternOfTheFileCounts) {
  const std::string path = "transformer.h.0.attn.c_attn";
  EXPECT_EQ(alpha(R"({"c_attn": 2, "attn.c_attn": 3})", path), 2.0);
  EXPECT_EQ(alpha(R"({"attn.c_attn": 3, "c_attn": 2})", path), 3.0);
  EXPECT_EQ(alpha(R"({"z": 9, "h\\.0\\..*": 4, "c_attn": 2, "a.*": 5})", path), 4.0);
  EXPECT_EQ(alpha(R"({"z": 9, ".*attn": 5, "h\\.0\\..*": 4})", path), 5.0);
  EXPECT_EQ(alpha(R"({"attn": 2, "transformer": 3})", path), 1.0);  // the end of the path only
  // r and alpha are looked up apart.
  const PeftConfig both = config(
      R"({"r": 4, "rank_pattern": {"h.0.*": 8}, "alpha_pattern": {"c_attn": 2, "h.0.*": 3}})");
  EXPECT_EQ(both.rank(path, 1), 8);
  EXPECT_EQ(both.for_layer("alpha_pattern", path, 1.0), 2.0);
}

TEST(PeftConfig, PatternsAreRegularExpressions) {
  EXPECT_EQ(alpha(R"({"h\\.[0-9]{1,2}\\.attn": 2})", "transformer.h.11.attn"), 2.0);
  EXPECT_EQ(alpha(R"({"h\\.\\d{1,2}\\.attn": 2})", "transformer.h.111.attn"), 1.0);
  EXPECT_EQ(alpha(R"({"h.(0|2).attn": 2})", "h.2.attn"), 2.0);
  EXPECT_EQ(alpha(R"({"^attn": 2})", "h.attn"), 1.0);
  EXPECT_EQ(alpha(R"({"^h\\.attn$": 2})", "h.attn"), 2.0);
  expect_error(ErrorCode::unsupported, "repeat counts",
               [] { alpha(R"({"(a{1,9}){1,9}": 2})", "a"); });
  expect_error(ErrorCode::unsupported, "repeat counts", [] { alpha(R"({"a{x}": 2})", "a"); });
}

// IA3 compares endings letter by letter, and expressions with the whole path.
TEST(PeftConfig, FeedforwardModulesAreSelectedAsPeftDoes) {
  const PeftConfig names = config(R"({"peft_type": "IA3", "feedforward_modules": ["fc2", "wo"]})");
  EXPECT_TRUE(names.selects("feedforward_modules", "layers.0.fc2"));
  EXPECT_TRUE(names.selects("feedforward_modules", "layers.0.two"));
  EXPECT_FALSE(names.selects("feedforward_modules", "fc2.out"));
  const PeftConfig expression = config(R"({"peft_type": "IA3", "feedforward_modules": "fc[12]"})");
  EXPECT_TRUE(expression.selects("feedforward_modules", "fc2"));
  EXPECT_FALSE(expression.selects("feedforward_modules", "layers.0.fc2"));
}

// Every field that PEFT 0.21.2 writes by itself, at its default, and those of 2023.
TEST(PeftConfig, FieldsAtTheirDefaultsChangeNothing) {
  const std::string common =
      R"("task_type": "CAUSAL_LM", "auto_mapping": {"base_model_class": "GPT2LMHeadModel",
      "parent_library": "transformers.models.gpt2.modeling_gpt2"}, "peft_version": "0.21.2",
      "base_model_name_or_path": "gpt2", "revision": null, "inference_mode": true,
      "target_modules": ["c_attn"], "exclude_modules": null, "modules_to_save": null,
      "layers_to_transform": null, "layers_pattern": null, )";
  const std::string lora =
      R"("r": 8, "lora_alpha": 8, "lora_dropout": 0.05, "fan_in_fan_out": true, "bias": "none",
      "use_rslora": false, "init_lora_weights": true, "rank_pattern": {}, "alpha_pattern": {},
      "megatron_config": null, "megatron_core": "megatron.core", "trainable_token_indices": null,
      "loftq_config": {}, "eva_config": null, "corda_config": null, "lora_ga_config": null,
      "use_dora": false, "velora_config": null, "alora_invocation_tokens": null,
      "use_qalora": false, "qalora_group_size": 16, "monteclora_config": null,
      "layer_replication": null, "lora_bias": false, "target_parameters": null,
      "use_bdlora": null, "arrow_config": null, "kasa_config": null, "ensure_weight_tying": false)";
  const std::vector<std::string> texts = {
      R"("peft_type": "LORA", )" + lora,
      R"("peft_type": "LORA", "enable_lora": null, "merge_weights": true,
      "runtime_config": {"ephemeral_gpu_offload": false}, )" +
          lora,
      R"("peft_type": "ADALORA", "target_r": 8, "init_r": 12, "tinit": 0, "tfinal": 0, "deltaT": 1,
      "beta1": 0.85, "beta2": 0.85, "orth_reg_weight": 0.5, "total_step": 10, )" +
          lora,
      R"("peft_type": "LOHA", "rank_pattern": {}, "alpha_pattern": {}, "r": 8, "alpha": 8,
      "rank_dropout": 0.1, "module_dropout": 0.1, "use_effective_conv2d": false,
      "init_weights": true)",
      R"("peft_type": "LOKR", "r": 8, "alpha": 8, "rank_dropout": 0.0, "module_dropout": 0.0,
      "use_effective_conv2d": false, "decompose_both": false, "decompose_factor": -1,
      "rank_dropout_scale": false, "init_weights": "lycoris")",
      R"("peft_type": "OFT", "r": 0, "oft_block_size": 32, "module_dropout": 0.0,
      "fan_in_fan_out": false, "bias": "none", "init_weights": true, "coft": false, "eps": 6e-05,
      "block_share": false, "use_cayley_neumann": true, "num_cayley_neumann_terms": 5)",
      R"("peft_type": "BOFT", "boft_block_size": 4, "boft_block_num": 0,
      "boft_n_butterfly_factor": 1, "boft_dropout": 0.0, "fan_in_fan_out": false, "bias": "none",
      "init_weights": true)",
      R"("peft_type": "HRA", "r": 8, "apply_GS": false, "init_weights": true, "bias": "none")",
      R"("peft_type": "IA3", "feedforward_modules": ["c_fc"], "fan_in_fan_out": true,
      "init_ia3_weights": true)",
      R"("peft_type": "FOURIERFT", "n_frequency": 1000, "scaling": 150.0, "random_loc_seed": 777,
      "fan_in_fan_out": true, "bias": "none", "n_frequency_pattern": {}, "init_weights": false)",
      R"("peft_type": "VERA", "r": 256, "projection_prng_key": 0, "save_projection": true,
      "vera_dropout": 0.0, "d_initial": 0.1, "fan_in_fan_out": true, "bias": "none",
      "init_weights": true)"};
  for (const std::string& text : texts) EXPECT_NO_THROW(config("{" + common + text + "}")) << text;
}

TEST(PeftConfig, FieldsThatChangeTheMathematicsAreRefused) {
  for (const char* field :
       {R"("bias": "all")", R"("use_qalora": true)", R"("layer_replication": [[0, 4], [2, 5]])",
        R"("target_parameters": ["experts.gate"])", R"("alora_invocation_tokens": [1])",
        R"("trainable_token_indices": [5])", R"("use_bdlora": {"blocks": 2})",
        R"("arrow_config": {"top_k": 3})", R"("kasa_config": {"beta": 1})",
        R"("monteclora_config": {"samples": 4})", R"("enable_lora": [true, false])",
        R"("megatron_config": {"tensor_model_parallel_size": 2})"})
    expect_error(ErrorCode::unsupported, "is unsupported",
                 [&] { config(std::string("{") + field + "}"); });
}

}  // namespace
}  // namespace ringlet::formats
