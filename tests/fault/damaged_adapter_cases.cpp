// Damages of kohya's, LyCORIS' and diffusers' files, and of names in all.
#include <limits>

#include "tests/fault/damaged_adapter.h"

namespace ringlet::formats::damaged {

/// Low rank: what all dialects have in common.
std::vector<Case> low_rank_cases() {
  using enum ErrorCode;
  const std::string down = "lora_unet_linear.lora_down.weight",
                    up = "lora_unet_linear.lora_up.weight", alpha = "lora_unet_linear.alpha",
                    file = "lycoris_kohya_locon";
  const at::Tensor two = at::ones({2});
  return {
      {"Float8", file, to(down, at::kFloat8_e4m3fn), mismatch, "numbers of type Float8_e4m3fn"},
      {"Float8Alpha", file, to(alpha, at::kFloat8_e5m2), mismatch, "numbers of type"},
      {"BooleanAlpha", file, to(alpha, at::kBool), mismatch, "numbers of type Bool"},
      {"UnsignedFactor", file, to(up, at::kUInt16), mismatch, "numbers of type UInt16"},
      {"DoublesTooLarge", file, both(to(down, at::kDouble), fill(down, 1e300)), non_finite,
       "too large for fp32"},
      {"AlphaTooLarge", file, set(alpha, at::tensor(1e30F)), unsupported, "cannot be"},
      {"AlphaOfNoNumber", file, set(alpha, at::zeros({0})), mismatch, "is empty"},
      // 352 MB, were they built
      {"HugeRank", file,
       both(set(down, at::zeros({1000000, 1}, at::kHalf)),
            set(up, at::zeros({1, 1000000}, at::kHalf))),
       mismatch, "fewer than"},
      {"RankOverTheLimit", file,
       both(set(down, at::zeros({1 << 21, 1}, at::kHalf)),
            set(up, at::zeros({1, 1 << 21}, at::kHalf))),
       unsupported, "cannot be"},
      {"Transposed", file, set(down, at::ones({48, 4})), mismatch, "ranks"},
      {"ShapeOfAnotherLayer", file, set(down, at::ones({4, 8, 3, 3})), mismatch,
       "has shape [4, 8, 3, 3], the model's layer needs [4, 48]"},
      {"KernelFlatTheOtherWay", file,
       set("lora_unet_conv.lora_down.weight", at::ones({4, 9, 8, 1})), mismatch,
       "the model's layer needs [4, 8, 3, 3]"},
      {"Ia3BesideIt", file, set("lora_unet_linear.weight", at::ones({40})), bad_format,
       "on_input: is missing"},
      {"DifferenceBesideIt", file, set("lora_unet_linear.diff", at::ones({40, 48})), bad_format,
       "does not belong to the rest"},
      {"NormBesideIt", file, set("lora_unet_linear.w_norm", at::ones({40})), bad_format,
       "lora_unet_linear.w_norm: does not belong to the rest"},
      {"OnlyAlpha", file, both(drop(down), drop(up)), unsupported, "of an unsupported method"},
      {"CoreOfOtherSize", "lycoris_locon_tucker",
       set("lycoris_conv.lora_mid.weight", at::ones({4, 4, 5, 5})), mismatch,
       "the model's layer needs [4, 4, 3, 3]"},
      {"CoreMissing", "lycoris_locon_tucker", drop("lycoris_conv.lora_mid.weight"), mismatch,
       "the model's layer needs [4, 8, 3, 3]"},
      {"CoreOnALinearLayer", "lycoris_locon_tucker",
       set("lycoris_linear.lora_mid.weight", at::ones({4, 4, 1, 1})), mismatch, "is a core"},
      {"MagnitudeInfinite", "lycoris_locon_dora_out",
       fill("lycoris_linear.dora_scale", std::numeric_limits<double>::infinity()), non_finite,
       "dora_scale: holds a NaN or an infinity"},
      {"MagnitudeOfNeitherAxis", "lycoris_locon_dora_in",
       set("lycoris_linear.dora_scale", at::ones({2, 24})), mismatch, "has 48 numbers"},
      {"MagnitudeEmpty", "lycoris_locon_dora_in",
       set("lycoris_linear.dora_scale", at::ones({1, 0})), mismatch, "is empty"},
      {"BiasWithoutABias", "lycoris_full", set("lycoris_bare.diff_b", at::ones({40})), unsupported,
       "needs a layer that has one"},
      {"BiasOfOtherLength", "lycoris_full", set("lycoris_linear.diff_b", at::ones({41})), mismatch,
       "the model's layer needs [40]"},
      {"NormOfOtherLength", "lycoris_norm", set("lycoris_group_norm.w_norm", at::ones({9})),
       mismatch, "does not fit the model's norm"},
      {"NormNaN", "lycoris_norm", fill("lycoris_layer_norm.b_norm", NAN), non_finite,
       "values that are not finite numbers"},
      {"NormOfIntegers", "lycoris_norm", to("lycoris_layer_norm.b_norm", at::kLong), non_finite,
       "values that are not finite numbers"},
      {"NormFloat8", "lycoris_norm", to("lycoris_layer_norm.b_norm", at::kFloat8_e5m2), non_finite,
       "values that are not finite numbers"},
      {"NormDoublesTooLarge", "lycoris_norm",
       both(to("lycoris_layer_norm.b_norm", at::kDouble), fill("lycoris_layer_norm.b_norm", 1e300)),
       non_finite, "too large for fp32"},
      {"NormThatIsALayer", "lycoris_norm", set("lycoris_linear.w_norm", at::ones({40, 48})),
       mismatch, "does not fit the model's norm"},
  };
}

/// Names.
std::vector<Case> name_cases() {
  using enum ErrorCode;
  const at::Tensor down = at::ones({4, 48}), up = at::ones({40, 4});
  const std::string to_q = kToQ;
  const auto layer = [&](const std::string& prefix) {
    return both(set(prefix + ".lora_A.weight", down), set(prefix + ".lora_B.weight", up));
  };
  return {
      {"NameClimbs", "diffusers_current_bare", layer("../../etc/passwd"), mismatch,
       "not in the model"},
      {"NameIsAPath", "diffusers_current_bare", layer("/etc/passwd"), mismatch, "not in the model"},
      {"NameIsTheComponent", "diffusers_current_bare", layer("unet."), mismatch,
       "not in the model"},
      {"NameEmpty", "diffusers_current_bare", set("", down), mismatch, "is not understood"},
      {"NameOfAnEndingOnly", "diffusers_current_bare", layer(""), mismatch, "not in the model"},
      {"NameWithControls", "diffusers_current_bare", layer("unet.\x1b[31m\n\r"), mismatch,
       "unet.\\x1b[31m\\x0a"},
      {"NameVeryLong", "diffusers_current_bare", layer(std::string(100000, 'x')), mismatch,
       "not in the model"},
      {"NamesVeryLong", "diffusers_current_bare",
       [&](Content& c) {
         for (char letter = 'a'; letter < 'z'; ++letter)
           c.tensors[std::string(5000, letter)] = at::ones({1});
       },
       mismatch, "nor are 24 others"},
      {"LayerInTwoSpellings", "diffusers_current_bare", layer(to_q), bad_format,
       "twice: \"" + to_q + "\" and \"unet." + to_q + "\""},
      {"LayerOfAnAttentionProcessor", "diffusers_processor", layer("unet." + to_q), bad_format,
       "twice"},
      {"EndingInTwoSpellings", "peft_adalora",
       set("base_model.model.linear.lora_A.weight", at::ones({6, 48})), bad_format,
       "has the same tensor twice"},
      {"NormInTwoSpellings", "lycoris_norm",
       both(set("lora_unet_layer_norm.w_norm", at::ones({48})),
            set("lora_unet_layer_norm.b_norm", at::ones({48}))),
       bad_format, "twice"},
      {"KohyaAndPeft", "peft_lora", set("lora_unet_linear.lora_down.weight", down), bad_format,
       "has the same layer twice"},
      {"KohyaAndCloneofsimo", "lycoris_kohya_locon", set("unet:0:down", down), bad_format,
       "unet:0:up: is missing"},
      {"PeftTensorOfNoLayer", "peft_lora", set("base_model.classifier.weight", down), mismatch,
       "is not understood"},
      {"PeftAdapterName", "peft_lora",
       set("base_model.model.linear.lora_A.default.weight", at::ones({4, 48})), mismatch,
       "are not in the model: \"base_model.model.linear.lora_A.default.weight\""},
      {"OtherComponent", "diffusers_current_bare", layer("text_encoder_2." + to_q), mismatch,
       "not in the model"},
      {"NumberTooLarge", "cloneofsimo", both(set("unet:99:down", down), set("unet:99:up", up)),
       mismatch, "not in the model"},
      {"NumberOfNone", "cloneofsimo", both(set("unet:-1:down", down), set("unet:-1:up", up)),
       mismatch, "not in the model"},
      {"NumberOfHalfAPair", "cloneofsimo", drop("unet:0:up"), bad_format, "unet:0:up: is missing"},
      {"ClassesOfOthers", "cloneofsimo", metadata("unet", R"(["ResnetBlock2D"])"), unsupported,
       "of classes other than"},
      {"ClassesNoJson", "cloneofsimo", metadata("unet", "CrossAttention"), bad_format,
       "is not valid JSON"},
      {"ClassesANumber", "cloneofsimo", metadata("unet", "7"), unsupported,
       "of classes other than"},
  };
}

/// Products, rotations and scales of LyCORIS and kohya.
std::vector<Case> lycoris_cases() {
  using enum ErrorCode;
  const std::string l = "lycoris_linear.", c = "lycoris_conv.";
  const at::Tensor two = at::ones({2});
  return {
      {"LohaMissing", "lycoris_loha", drop(l + "hada_w2_b"), bad_format, "is missing"},
      {"LohaNoAxes", "lycoris_loha", set(l + "hada_w1_b", at::tensor(1.0F)), mismatch,
       "the model's layer needs"},
      {"LohaTransposed", "lycoris_loha", set(l + "hada_w1_b", at::ones({48, 4})), mismatch,
       "fewer than"},
      {"LohaHalfACore", "lycoris_loha_tucker", drop(c + "hada_t2"), bad_format, "is missing"},
      {"LohaCoresOnALinearLayer", "lycoris_loha",
       both(set(l + "hada_t1", at::ones({4, 4, 1, 1})), set(l + "hada_t2", at::ones({4, 4, 1, 1}))),
       bad_format, "hada_t1: is not used"},
      {"LokrBothForms", "lycoris_lokr_full", set(l + "lokr_w1_a", at::ones({5, 2})), bad_format,
       "does not belong to the rest"},
      {"LokrNoAxes", "lycoris_lokr", set(l + "lokr_w1", at::tensor(1.0F)), mismatch,
       "too few axes"},
      {"LokrOneAxis", "lycoris_lokr_full", set(l + "lokr_w2", at::ones({64})), mismatch,
       "too few axes"},
      {"LokrOtherRanks", "lycoris_lokr_both",
       both(set(l + "lokr_w1_a", at::ones({5, 3})), set(l + "lokr_w1_b", at::ones({3, 6}))),
       mismatch, "the model's layer needs"},
      {"LokrCoreOnALinearLayer", "lycoris_lokr_tucker", set(l + "lokr_t2", at::ones({2, 2, 1, 1})),
       mismatch, "make"},
      {"LokrCoreAndPositions", "lycoris_lokr_tucker", set(c + "lokr_w2_b", at::ones({2, 36})),
       mismatch, "make"},
      {"LokrWholeAndCore", "lycoris_lokr_full", set(c + "lokr_t2", at::ones({2, 2, 3, 3})),
       bad_format, "does not belong to the rest"},
      {"LokrProductOverflows", "lycoris_lokr",
       both(set(l + "lokr_w1", at::zeros({1 << 20, 1}, at::kHalf)),
            set(l + "lokr_w2_a", at::zeros({1 << 20, 2}, at::kHalf))),
       mismatch, "and its partner make"},
      {"LokrAlphaOfTwo", "lycoris_lokr_full", set(l + "alpha", two), mismatch, "is not one number"},
      {"GloraMissing", "lycoris_glora", drop(l + "a2.weight"), bad_format, "is missing"},
      {"GloraOneAxis", "lycoris_glora", set(l + "a1.weight", at::ones({192})), mismatch,
       "too few axes"},
      {"GloraOtherRank", "lycoris_glora", set(l + "b2.weight", at::ones({3, 48})), mismatch,
       "the model's layer needs [4, 48]"},
      {"GloraOtherWidth", "lycoris_glora", set(l + "a2.weight", at::ones({48, 4})), mismatch,
       "the model's layer needs"},
      {"OftNoAxes", "lycoris_diag_oft", set(l + "oft_blocks", at::tensor(1.0F)), mismatch,
       "are not square blocks"},
      {"OftOneAxis", "lycoris_diag_oft", set(l + "oft_blocks", at::ones({160})), mismatch,
       "are not square blocks"},
      {"OftFiveAxes", "lycoris_diag_oft", set(l + "oft_blocks", at::ones({1, 1, 10, 4, 4})),
       mismatch, "are not square blocks"},
      {"OftAlphaOfTwo", "lycoris_diag_oft_constraint", set(l + "alpha", two), mismatch,
       "is not one number"},
      {"OftAlphaNaN", "lycoris_diag_oft_constraint", fill(l + "alpha", NAN), non_finite,
       "alpha: holds a NaN"},
      {"OftAlphaTooLarge", "lycoris_diag_oft_constraint", set(l + "alpha", at::tensor(1e30F)),
       unsupported, "cannot be"},
      {"OftOfKohya", "lycoris_kohya_diag_oft",
       both(metadata("ss_network_module", "networks.oft_flux"),
            set("lora_unet_linear.alpha", at::tensor(0))),
       unsupported, "limits the rotation to zero"},
      // Skew-symmetric matrices of odd size are singular: (I - Q)^-1 is lost to rounding.
      {"OftTooLarge", "lycoris_diag_oft",
       [=](Content& content) {
         content.tensors.at(c + "oft_blocks") = content.tensors.at(c + "oft_blocks") * 1e30F;
       },
       non_finite, "unet.conv"},
      {"OftRescaleLength", "lycoris_diag_oft_rescaled", set(l + "rescale", at::ones({41, 1})),
       mismatch, "one number per output"},
      {"OftRescaleAlone", "lycoris_diag_oft_rescaled", drop(l + "oft_blocks"), unsupported,
       "of an unsupported method"},
      {"BoftOddBlock", "lycoris_boft", set(l + "oft_blocks", at::ones({1, 8, 5, 5})), unsupported,
       "be even"},
      {"BoftManyFactors", "lycoris_boft", set(l + "oft_blocks", at::ones({31, 10, 4, 4})),
       unsupported, "must divide the channels"},
      {"BoftNotSquare", "lycoris_boft", set(l + "oft_blocks", at::ones({2, 10, 4, 2})), mismatch,
       "are not square blocks"},
      {"Ia3NoSide", "lycoris_ia3_input", drop(l + "on_input"), bad_format, "is missing"},
      {"Ia3SideOfTwo", "lycoris_ia3_input", set(l + "on_input", two), mismatch,
       "is not one number"},
      {"Ia3OtherSide", "lycoris_ia3_input", set(l + "on_input", at::tensor(0)), mismatch,
       "one number per channel"},
      {"Ia3OnlyTheSide", "lycoris_ia3_input", drop(l + "weight"), unsupported,
       "of an unsupported method"},
  };
}

/// PEFT: the configuration against the tensors.

}  // namespace ringlet::formats::damaged
