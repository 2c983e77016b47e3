#include "ringlet/formats/adapter_names.h"

#include <array>
#include <set>
#include <utility>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/formats/ldm/ldm_unet.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/hollow_networks.h"

namespace ringlet::formats {
namespace {

constexpr std::array kNamings = {Naming::peft, Naming::diffusers, Naming::kohya, Naming::lycoris,
                                 Naming::cloneofsimo};

/// A tiny model of the golden tests, by the names of its tensors.
Indices tiny(const std::string& key) {
  Indices all;
  for (const auto& [component, shapes] :
       golden::pipelines().at("models").at(key).at("shapes").items()) {
    if (component == "vae" || shapes.is_null()) continue;
    std::vector<std::string> paths;
    for (const auto& [name, shape] : shapes.items())
      if (shape.size() > 1 && name.find("embeddings.") == std::string::npos)
        paths.push_back(name.substr(0, name.rfind('.')));
    all[component] = layers(paths);
  }
  return all;
}

/// Every name that prefix() writes is found again and belongs to one layer only.
void expect_round_trip(const Indices& indices) {
  const ModuleNames names(components(indices));
  std::map<Naming, std::size_t> written;
  for (const auto& [component, index] : indices)
    for (const Naming naming : kNamings) {
      std::set<std::string> seen;
      for (const auto& layer : index.layers) {
        const ModuleName module{component, layer.first};
        std::string name;
        try {
          name = names.prefix(naming, module);
        } catch (const Error& error) {
          ASSERT_EQ(naming, Naming::cloneofsimo) << error.what();
          continue;
        }
        EXPECT_TRUE(seen.insert(name).second) << name;
        EXPECT_EQ(names.find(name, component), module) << name;
        if (naming == Naming::peft) continue;  // the file says the component
        EXPECT_EQ(names.find(name), module) << name;
      }
      written[naming] += seen.size();
    }
  std::size_t count = 0;
  for (const auto& entry : indices) count += entry.second.layers.size();
  for (const Naming naming : {Naming::peft, Naming::diffusers, Naming::kohya, Naming::lycoris})
    EXPECT_EQ(written[naming], count);
  EXPECT_GT(written[Naming::cloneofsimo], 0U);
}

TEST(ModuleNames, WhatIsWrittenIsFound) {
  for (const char* key : {"sd1", "sd2", "sdxl"}) expect_round_trip(tiny(key));
  expect_round_trip(stable_diffusion_1());
  expect_round_trip(stable_diffusion_2());
  expect_round_trip(stable_diffusion_xl());
}

struct Spelling {
  const char* name;
  const char* component;
  const char* path;
};

void expect_spellings(const ModuleNames& names, const std::vector<Spelling>& spellings) {
  for (const Spelling& spelling : spellings)
    EXPECT_EQ(names.find(spelling.name), (ModuleName{spelling.component, spelling.path}))
        << spelling.name;
}

TEST(ModuleNames, EveryDialectIsRead) {
  const Indices indices = stable_diffusion_1();
  const char* query = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
  const char* out = "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0";
  const char* text = "text_model.encoder.layers.11.self_attn.q_proj";
  const char* text_out = "text_model.encoder.layers.0.self_attn.out_proj";
  expect_spellings(
      ModuleNames(components(indices)),
      {{"base_model.model.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "unet",
        query},
       {"base_model.model.text_model.encoder.layers.11.self_attn.q_proj", "text_encoder", text},
       {"unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "unet", query},
       {"unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_q_lora", "unet",
        query},
       {"down_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_q_lora", "unet", query},
       {"unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.processor.to_out_lora", "unet",
        out},
       {"unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out", "unet", out},
       {"text_encoder.text_model.encoder.layers.11.self_attn.to_q_lora", "text_encoder", text},
       {"text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora", "text_encoder", text_out},
       {"lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q", "unet", query},
       {"lora_unet_input_blocks_2_1_transformer_blocks_0_attn1_to_q", "unet", query},
       {"lora_te_text_model_encoder_layers_11_self_attn_q_proj", "text_encoder", text},
       {"lora_te1_text_model_encoder_layers_11_self_attn_q_proj", "text_encoder", text},
       {"lycoris_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q", "unet", query},
       {"lycoris_text_model_encoder_layers_11_self_attn_q_proj", "text_encoder", text},
       {"base_model.model.encoder.layers.11.self_attn.q_proj", "text_encoder", text},
       {"text_encoder.encoder.layers.11.self_attn.q_proj", "text_encoder", text},
       {"text_encoder.encoder.layers.0.self_attn.to_out_lora", "text_encoder", text_out},
       {"lora_te_encoder_layers_11_self_attn_q_proj", "text_encoder", text},
       {"lycoris_encoder_layers_11_self_attn_q_proj", "text_encoder", text},
       {"oft_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q", "unet", query},
       {"oft_unet_input_blocks_2_1_transformer_blocks_0_attn1_to_q", "unet", query},
       {"diffusion_model.input_blocks.2.1.transformer_blocks.0.attn1.to_q", "unet", query},
       {"input_blocks.2.1.transformer_blocks.0.attn1.to_q", "unet", query},
       {"diffusion_model.input_blocks.1.0.in_layers.0", "unet", "down_blocks.0.resnets.0.norm1"},
       {"diffusion_model.out.0", "unet", "conv_norm_out"},
       {"text_encoders.clip_l.transformer.text_model.encoder.layers.11.self_attn.q_proj",
        "text_encoder", text},
       {"text_encoders.clip_h.transformer.encoder.layers.11.self_attn.q_proj", "text_encoder",
        text},
       {"clip_l.transformer.text_model.encoder.layers.0.self_attn.out_proj", "text_encoder",
        text_out},
       {"clip_l.text_model.encoder.layers.0.self_attn.out_proj", "text_encoder", text_out},
       {"unet:9", "unet", query},
       {"text_encoder:46", "text_encoder", text}});
}

TEST(ModuleNames, LdmNamesOfTheXlUNet) {
  const Indices indices = stable_diffusion_xl();
  const ModuleNames names(components(indices));
  const std::vector<std::pair<const char*, const char*>> kLdm = {
      {"input_blocks_0_0", "conv_in"},
      {"input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"},
      {"input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"},
      {"input_blocks_4_0_skip_connection", "down_blocks.1.resnets.0.conv_shortcut"},
      {"input_blocks_4_1_transformer_blocks_0_attn1_to_q",
       "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"},
      {"input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
       "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"},
      {"middle_block_0_emb_layers_1", "mid_block.resnets.0.time_emb_proj"},
      {"middle_block_1_proj_in", "mid_block.attentions.0.proj_in"},
      {"middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"},
      {"output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"},
      {"output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"},
      {"output_blocks_5_1_proj_out", "up_blocks.1.attentions.2.proj_out"},
      {"output_blocks_8_0_in_layers_2", "up_blocks.2.resnets.2.conv1"},
      {"time_embed_0", "time_embedding.linear_1"},
      {"time_embed_2", "time_embedding.linear_2"},
      {"label_emb_0_0", "add_embedding.linear_1"},
      {"label_emb_0_2", "add_embedding.linear_2"},
      {"out_2", "conv_out"}};
  for (const auto& [ldm, path] : kLdm) {
    const ModuleName module{"unet", path};
    EXPECT_EQ(names.prefix(Naming::kohya, module), std::string("lora_unet_") + ldm);
    std::string flat = path;
    std::ranges::replace(flat, '.', '_');
    EXPECT_EQ(names.find("lora_unet_" + flat), module) << flat;
  }
}

TEST(ModuleNames, ComfyUiTellsTheTwoTextEncodersOfTheXlApart) {
  const Indices indices = stable_diffusion_xl();
  const char* path = "text_model.encoder.layers.3.mlp.fc2";
  expect_spellings(
      ModuleNames(components(indices)),
      {{"text_encoders.clip_l.transformer.text_model.encoder.layers.3.mlp.fc2", "text_encoder",
        path},
       {"text_encoders.clip_g.transformer.text_model.encoder.layers.3.mlp.fc2", "text_encoder_2",
        path},
       {"clip_g.transformer.encoder.layers.3.mlp.fc2", "text_encoder_2", path},
       {"text_encoders.clip_g.transformer.text_projection", "text_encoder_2", "text_projection"},
       {"text_encoder_2.encoder.layers.3.mlp.fc2", "text_encoder_2", path},
       {"lora_te2_encoder_layers_3_mlp_fc2", "text_encoder_2", path},
       {"diffusion_model.label_emb.0.2", "unet", "add_embedding.linear_2"}});
  EXPECT_EQ(ModuleNames(components(indices)).find("clip_h.transformer.encoder.layers.3.mlp.fc2"),
            std::nullopt);
}

// A network may hand its text encoder over under either spelling.
TEST(ModuleNames, TheLevelOfTextEncodersIsOptionalAndWrittenForReaders) {
  const std::string flat = "encoder.layers.0.self_attn.q_proj", level = "text_model." + flat;
  for (const std::string& own : {flat, level}) {
    const Indices indices = {{"unet", layers({"conv_in"})},
                             {"text_encoder", layers({own, "text_projection"})}};
    const ModuleNames names(components(indices));
    const ModuleName module{"text_encoder", own};
    for (const std::string& path : {flat, level}) {
      std::string under = path;
      std::ranges::replace(under, '.', '_');
      for (const std::string& name :
           {"text_encoder." + path, "base_model.model." + path, "lora_te_" + under,
            "lora_te1_" + under, "lycoris_" + under, "clip_l.transformer." + path})
        EXPECT_EQ(names.find(name), module) << name;
    }
    for (const Naming naming : {Naming::kohya, Naming::lycoris})
      EXPECT_EQ(names.prefix(naming, module),
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj");
    EXPECT_EQ(names.prefix(Naming::diffusers, module), "text_encoder." + level);
    EXPECT_EQ(names.prefix(Naming::peft, module), "base_model.model." + own);
    EXPECT_EQ(names.prefix(Naming::kohya, {"text_encoder", "text_projection"}),
              "lora_te_text_projection");
  }
  // In a whole CLIP the names without it could mean the vision model.
  const Indices clip = {{"model", layers({level, "vision_model." + flat})}};
  EXPECT_EQ(ModuleNames(components(clip)).find("base_model.model." + flat), std::nullopt);
  const Indices alone = {{"model", layers({level})}};
  EXPECT_EQ(ModuleNames(components(alone)).find("base_model.model." + flat),
            (ModuleName{"model", level}));
}

TEST(ModuleNames, NormsHaveLdmNamesInTheXl) {
  const Indices indices = stable_diffusion_xl();
  const ModuleNames names(components(indices));
  const ModuleName norm{"unet", "down_blocks.1.attentions.0.norm"};
  EXPECT_EQ(names.prefix(Naming::kohya, norm), "lora_unet_input_blocks_4_1_norm");
  EXPECT_EQ(names.find("lora_unet_input_blocks_4_1_norm"), norm);
  EXPECT_EQ(names.find("lora_unet_down_blocks_1_attentions_0_norm"), norm);
}

TEST(ModuleNames, LdmNamesAgreeWithTheGoldenTable) {
  for (const char* key : {"sd1", "sd2", "sdxl"}) {
    const Indices indices = tiny(key);
    const nn::ModuleIndex& unet = indices.at("unet");
    const Json& table = golden::pipelines().at("models").at(key).at("ldm_names").at("unet");
    const auto names = ldm_module_names(unet, layer_names(unet));
    EXPECT_EQ(names.size(), unet.layers.size());
    for (const auto& [path, ldm] : names)
      EXPECT_EQ(ldm + ".", golden::ldm_name(path + ".", table)) << path;
  }
}

TEST(ModuleNames, KohyaNumbersTextEncodersWhenThereAreTwo) {
  const std::string path = "text_model.encoder.layers.0.self_attn.q_proj";
  const std::string flat = "text_model_encoder_layers_0_self_attn_q_proj";
  const Indices one = tiny("sd1");
  const Indices two = tiny("sdxl");
  const ModuleNames sd1(components(one)), sdxl(components(two));
  EXPECT_EQ(sd1.prefix(Naming::kohya, {"text_encoder", path}), "lora_te_" + flat);
  EXPECT_EQ(sdxl.prefix(Naming::kohya, {"text_encoder", path}), "lora_te1_" + flat);
  EXPECT_EQ(sdxl.prefix(Naming::kohya, {"text_encoder_2", path}), "lora_te2_" + flat);
  EXPECT_EQ(sdxl.prefix(Naming::lycoris, {"text_encoder_2", path}), "lora_te2_" + flat);
  EXPECT_EQ(sd1.prefix(Naming::kohya, {"unet", "conv_in"}), "lora_unet_conv_in");
}

TEST(ModuleNames, UnknownNamesAreNotFound) {
  const Indices indices = tiny("sd1");
  const ModuleNames names(components(indices));
  for (const char* name :
       {"", "unet", "unet.", "unet.x", "lora_unet_", "lora_te2_text_model", "<s1>", "unet:-1",
        "unet:9999", "unet:00", "text_encoder_2:0", "conv_in.weight", "lora_unet_conv.in"})
    EXPECT_EQ(names.find(name), std::nullopt) << name;
  EXPECT_EQ(names.find("base_model.model.conv_in", "text_encoder"), std::nullopt);
  expect_error(ErrorCode::not_found, "unet.x", [&] { names.prefix(Naming::kohya, {"unet", "x"}); });
  expect_error(ErrorCode::unsupported, "no name for this layer", [&] {
    names.prefix(Naming::cloneofsimo, {"unet", "conv_in"});
  });
}

TEST(ModuleNames, AmbiguousNamesAreRefused) {
  const Indices indices = {{"unet", layers({"a.b_c", "a_b.c"})}};
  const ModuleNames names(components(indices));
  const char* both = "\"unet.a.b_c\" and \"unet.a_b.c\"";
  for (const char* name : {"lora_unet_a_b_c", "lycoris_a_b_c"})
    expect_error(ErrorCode::mismatch, both, [&] { names.find(name); });
  for (const Naming naming : {Naming::kohya, Naming::lycoris})
    expect_error(ErrorCode::unsupported, both, [&] { names.prefix(naming, {"unet", "a_b.c"}); });
  for (const Naming naming : {Naming::peft, Naming::diffusers})
    for (const char* path : {"a.b_c", "a_b.c"})
      EXPECT_EQ(names.find(names.prefix(naming, {"unet", path})), (ModuleName{"unet", path}));
}

TEST(ModuleNames, TheComponentIsTheGivenOneOrTheUNetOrTheOnlyOne) {
  const Indices indices = {{"unet", layers({"both", "unet_only"})},
                           {"text_encoder", layers({"both", "text", "first"})},
                           {"text_encoder_2", layers({"text"})}};
  const ModuleNames names(components(indices));
  const auto component = [&](const std::string& name, const std::string& given = {}) {
    const auto module = names.find("base_model.model." + name, given);
    return module ? module->component : "";
  };
  EXPECT_EQ(component("both"), "unet");
  EXPECT_EQ(component("both", "text_encoder"), "text_encoder");
  EXPECT_EQ(component("first"), "text_encoder");
  EXPECT_EQ(component("text", "text_encoder_2"), "text_encoder_2");
  EXPECT_EQ(component("unet_only", "text_encoder"), "");
  for (const char* name : {"base_model.model.text", "text", "lycoris_text"})
    expect_error(ErrorCode::mismatch, "several layers", [&] { names.find(name); });
  // A name that says its component means that one.
  EXPECT_EQ(names.find("unet.both", "text_encoder"), (ModuleName{"unet", "both"}));
}

TEST(ModuleNames, OtherNetworksHaveNamesWithoutSpecialRules) {
  const Indices indices = {{"net", layers({"block.fc1"})}};
  const ModuleNames names(components(indices));
  const ModuleName module{"net", "block.fc1"};
  for (const Naming naming : {Naming::peft, Naming::diffusers, Naming::lycoris})
    EXPECT_EQ(names.find(names.prefix(naming, module)), module);
  expect_error(ErrorCode::unsupported, "kohya", [&] { names.prefix(Naming::kohya, module); });
}

TEST(ModuleNames, UnequalLevelsHaveNoLdmNames) {
  const Indices indices = {
      {"unet", layers({"down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv1",
                       "down_blocks.1.resnets.1.conv1", "add_embedding.linear_1"})}};
  const nn::ModuleIndex& unet = indices.at("unet");
  EXPECT_TRUE(ldm_module_names(unet, layer_names(unet)).empty());
  EXPECT_EQ(ModuleNames(components(indices))
                .prefix(Naming::kohya, {"unet", "down_blocks.1.resnets.0.conv1"}),
            "lora_unet_down_blocks_1_resnets_0_conv1");
}

TEST(ModuleNames, CloneofsimoWalksTheLayersInDefinitionOrder) {
  const Indices indices = stable_diffusion_1();
  const ModuleNames names(components(indices));
  const std::string block = "down_blocks.0.attentions.0.transformer_blocks.0.";
  const std::string text = "text_model.encoder.layers.0.self_attn.";
  const std::vector<std::string> order = {"attn1.to_q",     "attn1.to_k",    "attn1.to_v",
                                          "attn1.to_out.0", "ff.net.0.proj", "attn2.to_q",
                                          "attn2.to_k",     "attn2.to_v",    "attn2.to_out.0"};
  const auto path = [&](const std::string& position) { return names.find(position)->path; };
  for (std::size_t i = 0; i < order.size(); ++i)
    EXPECT_EQ(path("unet:" + std::to_string(i)), block + order[i]);
  EXPECT_EQ(path("unet:54"), "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q");
  EXPECT_EQ(path("unet:143"), "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0");
  const std::vector<std::string> projections = {"k_proj", "v_proj", "q_proj", "out_proj"};
  for (std::size_t i = 0; i < projections.size(); ++i)
    EXPECT_EQ(path("text_encoder:" + std::to_string(i)), text + projections[i]);
  EXPECT_EQ(path("text_encoder:47"), "text_model.encoder.layers.11.self_attn.out_proj");
  EXPECT_EQ(names.find("unet:144"), std::nullopt);
  EXPECT_EQ(names.find("text_encoder:48"), std::nullopt);
}

}  // namespace
}  // namespace ringlet::formats
