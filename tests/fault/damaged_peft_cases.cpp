// Damages of PEFT's folders and of ringlet's own files.
#include "tests/fault/damaged_adapter.h"

namespace ringlet::formats::damaged {

/// PEFT: the configuration against the tensors.
std::vector<Case> peft_cases() {
  using enum ErrorCode;
  const std::string l = "base_model.model.linear.", c = "base_model.model.conv.";
  return {
      {"ConfigTypeOfAnother", "peft_lora", field("peft_type", "LOHA"), bad_format,
       "peft_type \"LOHA\""},
      {"ConfigTypeOfOft", "peft_oft_cayley", field("peft_type", "LORA"), bad_format,
       "peft_type \"LORA\""},
      {"ConfigTypeIsANumber", "peft_lora", field("peft_type", 7), bad_format, "wrong type"},
      {"ConfigRankOfOthers", "peft_lora", field("r", 8), mismatch, "rank 8"},
      {"ConfigRankHuge", "peft_lora", field("r", 2147483648), mismatch, "rank 2147483648"},
      {"ConfigRankIsText", "peft_lora", field("r", "4"), bad_format, "wrong type"},
      {"ConfigRankIsAFraction", "peft_lora", field("r", 4.5), bad_format, "wrong type"},
      {"ConfigRankPattern", "peft_lora", field("rank_pattern", {{"conv", 3}}), mismatch, "rank 3"},
      {"ConfigRankPatternHuge", "peft_lokr_full", field("rank_pattern", {{"conv", 1e300}}),
       bad_format, "whole number"},
      {"ConfigRankOfLokrZero", "peft_lokr_full", field("r", 0), unsupported, "cannot be"},
      {"ConfigRankPatternAList", "peft_lora", field("rank_pattern", {1, 2}), bad_format,
       "rank_pattern"},
      {"ConfigAlphaPatternText", "peft_lora", field("alpha_pattern", "linear"), bad_format,
       "alpha_pattern"},
      {"ConfigAlphaPatternZero", "peft_lora", field("alpha_pattern", {{"linear", 0}}), unsupported,
       "cannot be"},
      {"ConfigAlphaNegative", "peft_lora", field("lora_alpha", -2), unsupported, "cannot be"},
      {"ConfigAlphaHuge", "peft_lora", field("lora_alpha", 1e200), unsupported, "cannot be"},
      {"ConfigAlphaAList", "peft_lora", field("lora_alpha", {2}), bad_format, "wrong type"},
      {"ConfigDoraWithoutLengths", "peft_lora", field("use_dora", true), bad_format,
       "lora_magnitude_vector: is missing"},
      {"ConfigDoraIsText", "peft_lora_dora", field("use_dora", "yes"), bad_format, "wrong type"},
      {"ConfigBiasWithoutIt", "peft_lora", field("lora_bias", true), bad_format,
       "lora_B.bias: is missing"},
      {"ConfigLoftq", "peft_lora", field("init_lora_weights", "loftq"), unsupported, "\"loftq\""},
      {"ConfigCorda", "peft_lora", field("init_lora_weights", "corda"), unsupported, "\"corda\""},
      {"ConfigUnknownStart", "peft_lora", field("init_lora_weights", "../x"), unsupported,
       "\"../x\""},
      {"ConfigFieldIsHuge", "peft_lora", field("mystery", std::string(1 << 20, 'm')), unsupported,
       "mystery"},
      {"ConfigFieldNameIsHuge", "peft_lora", field(std::string(1 << 20, 'm'), 1), unsupported,
       "mmm"},
      {"ConfigTwice", "peft_lora", text(R"({"r":4,"r":4})"), bad_format, "appears twice"},
      {"ConfigDeep", "peft_lora", text("{\"r\":" + std::string(10000, '[')), bad_format, "deep"},
      {"ConfigEmpty", "peft_lora", text("\n"), bad_format, "is not valid JSON"},
      {"ConfigUtf16", "peft_lora", text("\xFF\xFE{}"), bad_format, "adapter_config.json"},
      {"ConfigOfAnotherProgram", "peft_lora", text(R"({"_class_name":"UNet2DConditionModel"})"),
       unsupported, "_class_name"},

      {"PatternBroken", "peft_lora", field("alpha_pattern", {{"[z-a]", 3}}), bad_format,
       "is not a regular expression"},
      {"PatternVeryLong", "peft_lora",
       field("alpha_pattern", {{std::string(100000, '(') + std::string(100000, ')'), 3}}),
       unsupported, "longer than"},
      {"PatternCounts", "peft_lora", field("alpha_pattern", {{"((.{1,999}){1,999}){9}", 3}}),
       unsupported, "repeat counts"},
      {"PatternLooksAhead", "peft_lora", field("alpha_pattern", {{"(?=.*(?=.*x))", 3}}),
       unsupported, "uses lookahead"},
      {"PatternRefersBack", "peft_lora", field("alpha_pattern", {{R"((a*)*\1b)", 3}}), bad_format,
       "is not a regular expression"},
      {"PatternsTooMany", "peft_lora",
       [](Content& content) {
         for (int i = 0; i < 1000; ++i)
           content.config["alpha_pattern"]["(no)+" + std::to_string(i)] = 1;
       },
       unsupported, "regular expressions"},
      {"FeedforwardIsANumber", "peft_ia3_feedforward", field("feedforward_modules", 7), bad_format,
       "feedforward_modules"},
      {"FeedforwardHoldsNumbers", "peft_ia3_feedforward", field("feedforward_modules", {7}),
       bad_format, "feedforward_modules"},
      {"FeedforwardBroken", "peft_ia3_feedforward", field("feedforward_modules", "*"), bad_format,
       "is not a regular expression"},
      {"FeedforwardForgotten", "peft_ia3_feedforward", field("feedforward_modules", nullptr),
       mismatch, "one number per channel"},

      {"PissaScale", "peft_lora_pissa", field("lora_alpha", 1e-300), non_finite, "pissa"},
      {"PissaRank", "peft_lora_pissa",
       [=](Content& content) {
         content.tensors.at(l + "lora_A.weight") = at::ones({41, 48});
         content.tensors.at(l + "lora_B.weight") = at::ones({40, 41});
         content.config["r"] = 41;
       },
       unsupported, "at most the weight's rank"},
      {"AdaloraOneAxis", "peft_adalora", set(l + "lora_A", at::ones({6})), mismatch,
       "too few axes"},
      {"AdaloraScales", "peft_adalora", set(l + "lora_E", at::ones({5, 1})), mismatch,
       "one number per rank"},
      {"AdaloraFirstRank", "peft_adalora", field("init_r", 0), unsupported, "init_r"},
      {"AdaloraFirstRankText", "peft_adalora", field("init_r", "x"), bad_format, "wrong type"},
      {"AdaloraOverflow", "peft_adalora", both(fill(l + "lora_A", 1e30), fill(l + "lora_E", 1e30)),
       non_finite, "too large for fp32"},

      {"OftSeriesIsText", "peft_oft_neumann", field("use_cayley_neumann", "yes"), bad_format,
       "wrong type"},
      {"OftTermsNegative", "peft_oft_neumann", field("num_cayley_neumann_terms", -1), unsupported,
       "cannot be"},
      {"OftTermsFraction", "peft_oft_neumann", field("num_cayley_neumann_terms", 2.5), bad_format,
       "wrong type"},
      {"OftLimitZero", "peft_oft_coft", field("eps", 0.0), unsupported, "eps"},
      {"OftLimitNegative", "peft_oft_coft", field("eps", -1.0), unsupported, "eps"},
      {"OftLimitIsText", "peft_oft_coft", field("eps", "x"), bad_format, "wrong type"},
      {"OftOneAxisOfPeft", "peft_oft_neumann", set(l + "oft_R.weight", at::ones({168})), mismatch,
       "too few axes"},
      {"OftThreeAxes", "peft_oft_neumann", set(l + "oft_R.weight", at::ones({6, 28, 1})), mismatch,
       "is not the blocks"},
      {"OftSizeThatDividesNothing", "peft_oft_neumann", set(l + "oft_R.weight", at::ones({6, 21})),
       mismatch, "is not the blocks"},
      {"BoftThreeAxes", "peft_boft_m2", set(l + "boft_R", at::ones({12, 4, 4})), mismatch,
       "are not square blocks"},
      {"BoftScaleNaN", "peft_boft_m2", fill(l + "boft_s", NAN), non_finite, "boft_s"},
      {"HraOneZeroColumn", "peft_hra",
       [=](Content& content) {
         content.tensors.at(l + "hra_u") = content.tensors.at(l + "hra_u").clone();
         content.tensors.at(l + "hra_u").select(1, 2).zero_();
       },
       mismatch, "length zero"},
      {"HraTooLong", "peft_hra", fill(l + "hra_u", 1e30), non_finite, "unet.linear"},
      {"HraOneAxis", "peft_hra", set(l + "hra_u", at::ones({48})), mismatch, "one row per input"},
      {"HraRank", "peft_hra", field("r", 3), mismatch, "rank 3"},
      {"HraOrthogonalOfTooMany", "peft_hra_gs",
       [=](Content& content) {
         for (const std::string& name : {l, c})
           content.tensors.at(name + "hra_u") = at::randn({name == l ? 48 : 72, 100});
         content.config["r"] = 100;
       },
       mismatch, "more vectors than"},
      {"Ia3LengthOfPeft", "peft_ia3", set(l + "ia3_l", at::ones({39, 1})), mismatch,
       "one number per channel"},
      {"FourierScale", "peft_fourierft", field("scaling", 0.0), unsupported, "cannot be"},
      {"FourierScaleIsText", "peft_fourierft", field("scaling", "x"), bad_format, "wrong type"},
      {"FourierSeed", "peft_fourierft", field("random_loc_seed", -1), unsupported, "cannot be"},
      {"FourierSeedHuge", "peft_fourierft", field("random_loc_seed", 1e18), bad_format,
       "wrong type"},
      {"FourierMoreThanPlaces", "peft_fourierft",
       set(l + "fourierft_spectrum", at::ones({40 * 48 + 1})), mismatch, "the model's layer needs"},
      {"VeraRank", "peft_vera_no_projection", field("r", 9), mismatch, "rank 9"},
      // 352 MB, were they built
      {"VeraHugeRank", "peft_vera_no_projection",
       [=](Content& content) {
         for (const char* name : {"linear", "wide"})
           content.tensors.at("base_model.model." + std::string(name) + ".vera_lambda_d") =
               at::zeros({1000000}, at::kHalf);
         content.config["r"] = 1000000;
       },
       unsupported, "vera"},
      {"VeraSeed", "peft_vera_no_projection", field("projection_prng_key", -1), unsupported,
       "cannot be"},
      {"VeraSeedHuge", "peft_vera", field("projection_prng_key", 1LL << 54), unsupported,
       "cannot be"},
      {"VeraOtherSeed", "peft_vera", field("projection_prng_key", 12), unsupported,
       "are not the matrices"},
      {"VeraIntegers", "peft_vera", to("base_model.vera_A", at::kInt), unsupported,
       "are not the matrices"},
      {"VeraTransposed", "peft_vera", set("base_model.vera_A", at::ones({56, 8})), unsupported,
       "are not the matrices"},
      {"VeraHalfAPair", "peft_vera", drop(l + "vera_lambda_d"), bad_format, "is missing"},
      {"VeraMatricesOfNone", "peft_lora", set("base_model.vera_A", at::ones({8, 56})), bad_format,
       "vera_A"},

      {"SavedRank", "diffusers_current", saved("unet.r", 5), mismatch, "rank 5"},
      {"SavedAlphaIsText", "diffusers_current", saved("unet.lora_alpha", "x"), bad_format,
       "wrong type"},
      {"SavedUnknownField", "diffusers_current", saved("unet.mystery", 1), unsupported, "mystery"},
      {"SavedForNobody", "diffusers_current", saved("lora_alpha", 3), unsupported,
       "\"lora_alpha\""},
      {"SavedDora", "diffusers_current", saved("unet.use_dora", true), bad_format,
       "lora_magnitude_vector: is missing"},
      {"SavedIsText", "diffusers_current", metadata("lora_adapter_metadata", "\"unet.r\""),
       bad_format, "is not a JSON object"},
  };
}

/// ringlet's own files.
std::vector<Case> own_cases() {
  using enum ErrorCode;
  const std::string method = "ringlet.method", layer_methods = "ringlet.layer_methods",
                    l = "unet.linear.", lora = "own lora(rank=2)";
  const std::string chain =
      "own oft(block=4)+hra(rank=2)+diagonal(side=output)+lowrank(rank=1)+lora(rank=1)+magnitude";
  const auto other = [=](const std::string& text) { return metadata(method, text); };
  const auto linear_is = [=](const std::string& text) {
    return metadata(layer_methods, Json{{"unet.linear", text}}.dump());
  };
  return {
      {"OwnMethodEmpty", lora, other(""), unsupported, "there is no method \"\""},
      {"OwnMethodVeryLong", lora, other(std::string(1 << 20, 'l')), unsupported, "its method"},
      {"OwnMethodOfSpaces", lora, other(std::string(1 << 20, ' ') + "lora(rank=2)"), unsupported,
       "its method"},
      {"OwnTwoResiduals", lora, other("lora(rank=1)+loha(rank=1)"), unsupported, "two residuals"},
      {"OwnRankNaN", lora, other("lora(rank=nan)"), unsupported, "must be a number"},
      {"OwnRankInfinite", lora, other("lora(rank=1e999)"), unsupported, "must be a number"},
      {"OwnRankFraction", lora, other("lora(rank=1.5)"), unsupported, "whole number"},
      {"OwnAlphaZero", lora, other("lora(rank=2,alpha=0)"), unsupported, "above 0"},
      {"OwnOptionTwice", lora, other("lora(rank=2,rank=2)"), unsupported, "given twice"},
      {"OwnOpenBracket", lora, other("lora(rank=2"), unsupported, "closing bracket"},
      {"OwnAliasOfAliases", lora, other("glora(rank=1)+glora(rank=1)"), unsupported,
       "two residuals"},
      {"OwnLayerMethodNoText", lora, metadata(layer_methods, R"({"unet.linear":7})"), bad_format,
       "is not a string"},
      {"OwnLayerMethodList", lora, metadata(layer_methods, "[]"), bad_format,
       "is not a JSON object"},
      {"OwnLayerMethodTwice", lora,
       metadata(layer_methods, R"({"unet.linear":"bias","unet.linear":"bias"})"), bad_format,
       "appears twice"},
      {"OwnLayerMethodHuge", lora, linear_is("lora(rank=2147483648)"), unsupported,
       "rank=2147483648"},
      {"OwnLayerMethodLarger", lora, linear_is("lora(rank=999)"), bad_format,
       "fewer than lora(alpha=999,rank=999)"},
      {"OwnLayerMethodOther", lora, linear_is("diagonal"), bad_format,
       "transform.scale\" is missing"},
      {"OwnLayerMethodUnknown", lora, linear_is("../lora"), unsupported, "there is no method"},
      {"OwnLayerMethodEmptyName", lora, metadata(layer_methods, R"({"":"lora"})"), bad_format,
       "method"},
      {"OwnSplitNoPair", "own lokr(rank=1)", other("lokr(rank=1,out=8)"), bad_format,
       "is not a pair"},
      {"OwnSplitOfAnother", "own lokr(rank=1)", other("lokr(rank=1,out=2x3,in=2x3)"), bad_format,
       "do not make a weight"},
      {"OwnSplitOverflows", "own lokr(rank=1)",
       other("lokr(rank=1,out=2147483647x2147483647,in=2147483647x2147483647,w1=full,w2=full)"),
       bad_format, "too large"},
      {"OwnBoftOfAnother", "own lora(rank=40)", other("boft(block=7,factors=2)"), unsupported,
       "do not exist"},
      {"OwnManyTerms", "own oft(block=4)", other("oft(block=4,cayley=neumann,terms=1000000)"),
       unsupported, "at most 64 terms"},
      {"OwnPissaOfTooHighRank", "own lora(rank=60)", other("lora(rank=20,init=pissa)"), unsupported,
       "at most the weight's rank"},
      // 1 GB, were they built
      {"OwnVeraHugeRank", "own lora(rank=2)",
       both(other("vera(rank=1000000)"), set("spare", at::zeros({3000000}, at::kHalf))),
       unsupported, "vera"},
      {"OwnVeraOfManySeeds", "own lora(rank=2)",
       [=](Content& content) {
         Json shapes, methods;
         int seed = 0;
         for (const char* name : {"linear", "wide", "conv", "bare", kToQ}) {
           const std::string full = "unet." + std::string(name);
           methods[full] = "vera(rank=256,seed=" + std::to_string(seed++) + ")";
           shapes[full] = std::string(name) == "wide"   ? Json{64, 56}
                          : std::string(name) == "conv" ? Json{12, 8, 3, 3}
                                                        : Json{40, 48};
         }
         content.metadata["ringlet.base_shapes"] = shapes.dump();
         content.metadata[layer_methods] = methods.dump();
         content.tensors["spare"] = at::zeros({10000});
       },
       unsupported, "different random matrices"},
      {"OwnFloat8", lora, to(l + "residual.up", at::kFloat8_e5m2), bad_format, "type"},
      {"OwnScalar", lora, set(l + "residual.up", at::tensor(1.0F)), bad_format, "fewer than"},
      {"OwnTransposed", "own lora(rank=2)+bias", set(l + "residual.up", at::ones({2, 40})),
       bad_format, "has shape [2, 40] instead of [40, 2]"},
      {"OwnBiasWithoutABias", "own lora(rank=2)",
       metadata("ringlet.base_shapes", R"({"unet.bare":[40,48]})"), bad_format, "is missing"},
      {"OwnHraZero", "own hra(rank=2)", fill(l + "transform.u", 0.0), non_finite, "unet.linear"},
      {"OwnHraTooLong", "own hra(rank=2)", fill(l + "transform.u", 1e30), non_finite,
       "unet.linear"},
      {"OwnOftTooLarge", "own oft(block=3)",
       [=](Content& content) {
         content.tensors.at(l + "transform.blocks") = at::randn({16, 3}) * 1e30F;
       },
       non_finite, "unet.linear"},
      {"OwnChainIncomplete", chain, drop(l + "transform_2.u"), bad_format, "fewer than"},
      {"OwnChainOfOthers", chain,
       both(drop(l + "transform_2.u"), set(l + "transform_5.u", at::ones({48, 2}))), bad_format,
       "transform_2.u\" is missing"},
      {"OwnChainTooMuch", chain, set(l + "transform_5.u", at::ones({48, 2})), bad_format,
       "belongs to none"},
      {"OwnChainShorter", chain, other("oft(block=4)+lora(rank=1)"), bad_format, "belongs to none"},
      {"OwnChainSwapped", chain,
       [=](Content& content) {
         std::swap(content.tensors.at(l + "transform.blocks"),
                   content.tensors.at(l + "transform_2.u"));
       },
       bad_format, "has shape"},
      {"OwnNormOfOtherLength", lora,
       metadata("ringlet.base_shapes", R"({"unet.layer_norm.weight":[47]})"), mismatch,
       "has shape [47] in the file, [48] in the model"},
      {"OwnShapesTwice", lora,
       metadata("ringlet.base_shapes", R"({"unet.linear":[40,48],"unet.linear":[40,48]})"),
       bad_format, "appears twice"},
      {"OwnShapesOverflow", lora,
       metadata("ringlet.base_shapes", R"({"unet.linear":[9223372036854775807,48]})"), mismatch,
       "in the file"},
      {"OwnLayerClimbs", lora, metadata("ringlet.base_shapes", R"({"../unet.linear":[40,48]})"),
       mismatch, "the model has no \"\""},
      {"OwnLayerVeryLong", lora,
       metadata("ringlet.base_shapes", "{\"unet." + std::string(100000, 'x') + "\":[40,48]}"),
       bad_format, "has a layer name of 100005 characters"},
  };
}

}  // namespace ringlet::formats::damaged
