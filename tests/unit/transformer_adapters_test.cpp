// Adapter files of Stable Diffusion 3 and FLUX: names and sizes of published files, text encoders,
// and what is refused.
#include <array>
#include <filesystem>
#include <optional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/formats/adapter_kind.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/sd3_transformer.h"
#include "ringlet/models/text/t5_encoder.h"
#include "tests/expect_error.h"
#include "tests/hollow_networks.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

/// FLUX of width 8; 16 channels of a token, as with a control picture.
nn::ModuleIndex tiny_flux(std::int64_t layers = 1, std::int64_t single_layers = 1) {
  return hollow<models::FluxTransformer2DModel, models::FluxConfig>(
      {{"in_channels", 16},
       {"out_channels", 8},
       {"num_layers", layers},
       {"num_single_layers", single_layers},
       {"attention_head_dim", 8},
       {"num_attention_heads", 1},
       {"joint_attention_dim", 6},
       {"pooled_projection_dim", 4},
       {"guidance_embeds", true},
       {"axes_dims_rope", {2, 2, 4}}});
}

nn::ModuleIndex tiny_sd3() {
  return hollow<models::Sd3Transformer2DModel, models::Sd3Config>({{"sample_size", 4},
                                                                   {"num_layers", 2},
                                                                   {"attention_head_dim", 4},
                                                                   {"num_attention_heads", 2},
                                                                   {"joint_attention_dim", 6},
                                                                   {"caption_projection_dim", 8},
                                                                   {"pooled_projection_dim", 4},
                                                                   {"in_channels", 2},
                                                                   {"pos_embed_max_size", 4}});
}

nn::ModuleIndex tiny_t5() {
  return hollow<models::T5Encoder, models::T5Config>({{"vocab_size", 30},
                                                      {"d_model", 16},
                                                      {"d_kv", 4},
                                                      {"d_ff", 20},
                                                      {"num_layers", 2},
                                                      {"num_heads", 2},
                                                      {"feed_forward_proj", "gated-gelu"}});
}

/// FLUX with its encoders: T5 is the second.
Indices flux_with_encoders() {
  Indices all;
  all["transformer"] = tiny_flux(19, 38);
  all["text_encoder"] = hollow_text(64, 12);
  all["text_encoder_2"] = tiny_t5();
  return all;
}

ReadAdapter read(const Tensors& tensors, const Indices& model, const char* name = "a.safetensors") {
  const TemporaryFolder folder;
  io::save_tensors(folder / name, tensors);
  return read_adapter(folder / name, components(model));
}

void expect_refused(const Tensors& tensors, const Indices& model, ErrorCode code,
                    const char* words) {
  SCOPED_TRACE(tensors.begin()->first);
  expect_error(code, words, [&] { read(tensors, model); });
}

Tensors low_rank(const std::string& layer, std::int64_t out, std::int64_t in) {
  return {{layer + ".lora_down.weight", at::randn({2, in})},
          {layer + ".lora_up.weight", at::randn({out, 2})},
          {layer + ".alpha", at::scalar_tensor(1.0)}};
}

// Names and shapes of published files, which are not part of this repository.

std::optional<Json> key_list(const std::string& name) {
  const fs::path file = fs::path(RINGLET_SOURCE_DIR) / "../shared/data/keylists" / (name + ".json");
  if (!fs::exists(file)) return std::nullopt;
  return read_json_file(file);
}

/// A size of FLUX.1 in the tiny network.
std::int64_t scaled(std::int64_t size, bool text) {
  static const std::map<std::int64_t, std::int64_t> kFlux = {
      {3072, 8},  {9216, 24}, {12288, 32}, {15360, 40}, {18432, 48}, {21504, 56},
      {6144, 16}, {4096, 6},  {768, 4},    {64, 8},     {128, 16},   {256, 256}};
  static const std::map<std::int64_t, std::int64_t> kText = {{768, 64}, {3072, 256}};
  const auto& sizes = text ? kText : kFlux;
  const auto found = sizes.find(size);
  return found == sizes.end() ? 2 : found->second;
}

/// LoKr's factors of a layer; the list has other sizes than FLUX.1's layers.
at::Tensor lokr_factor(const std::string& name) {
  static const std::map<std::string, std::pair<std::int64_t, std::int64_t>> kSizes = {
      {"qkv", {24, 8}},   {"proj", {8, 8}},     {"mlp.0", {32, 8}},
      {"mlp.2", {8, 32}}, {"linear1", {56, 8}}, {"linear2", {8, 40}}};
  if (name.ends_with("lokr_w1")) return at::randn({2, 2});
  for (const auto& [layer, size] : kSizes)
    if (name.ends_with(layer + ".lokr_w2")) return at::randn({size.first / 2, size.second / 2});
  return at::scalar_tensor(1.0);
}

at::Tensor of_list(const std::string& name, const Json& shape) {
  const bool text = name.starts_with("lora_te");
  const auto size = [&](std::size_t axis) { return scaled(shape.at(axis), text); };
  const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (has(".lokr_")) return lokr_factor(name);
  if (shape.empty()) return at::scalar_tensor(1.0);
  if (name.ends_with("_norm.scale")) return at::randn({8});
  if (shape.size() == 1) return at::randn({size(0)});
  return has("down") || has("lora_A") ? at::randn({2, size(1)}) : at::randn({size(0), 2});
}

Tensors of_list(const Json& list) {
  Tensors tensors;
  for (const auto& [name, shape] : list.items()) tensors.emplace(name, of_list(name, shape));
  return tensors;
}

TEST(PublishedFluxFiles, EveryTensorOfSevenLayoutsIsPlaced) {
  struct Listed {
    const char* file;
    const char* dialect;
    std::size_t layers;  ///< that are changed
  };
  // 14 layers of a double block and 6 of a single one; 72 of CLIP; 10 beside the blocks.
  const std::array<Listed, 7> lists = {{{"flux_lora_kohya_format", "kohya", 494},
                                        {"flux_lora_kohya_with_te1_format", "kohya", 494 + 72},
                                        {"flux_lora_diffusers_format", "diffusers", 494},
                                        {"flux_lora_diffusers_base_model_format", "PEFT", 381},
                                        {"flux_lora_xlabs_format", "XLabs", 0},
                                        {"flux_control_lora_format", "the original layout", 504},
                                        {"flux_lokr_bfl_format", "ComfyUI", 0}}};
  const Indices model = flux_with_encoders();
  for (const Listed& one : lists) {
    const auto list = key_list(one.file);
    if (!list) GTEST_SKIP() << "the lists are not present";
    SCOPED_TRACE(one.file);
    const ReadAdapter adapter = read(of_list(*list), model);
    EXPECT_EQ(adapter.summary.dialect, one.dialect);
    if (one.layers > 0) {
      EXPECT_EQ(adapter.set.entries().size(), one.layers);
    }
  }
}

TEST(PublishedFluxFiles, FilesOfOtherTransformersAreKeptApart) {
  Indices sd3;
  sd3["transformer"] = tiny_sd3();
  const Indices flux = flux_with_encoders();
  for (const char* name :
       {"anima_lora_kohya_format", "anima_lora_kohya_with_te_format", "anima_lora_lokr_format",
        "anima_lora_peft_format", "krea2_lora_kohya_format", "qwen_image_lora_diffusers_format"}) {
    const auto list = key_list(name);
    if (!list) GTEST_SKIP() << "the lists are not present";
    SCOPED_TRACE(name);
    for (const Indices* model : {&flux, static_cast<const Indices*>(&sd3)})
      expect_error(ErrorCode::mismatch, "adapter of", [&] { read(of_list(*list), *model); });
  }
}

class TransformerAdapters : public testing::Test {
 protected:
  TransformerAdapters() {
    at::manual_seed(5);
    flux_["transformer"] = tiny_flux();
    sd3_["transformer"] = tiny_sd3();
  }
  Indices flux_, sd3_;
};

constexpr const char* kQkv = "lora_unet_double_blocks_0_img_attn_qkv";

TEST_F(TransformerAdapters, FamiliesAreNamedWhenTheyAreMixedUp) {
  const Tensors flux = low_rank(kQkv, 24, 8);
  const Tensors sd3 = low_rank("lora_unet_joint_blocks_0_x_block_attn_qkv", 24, 8);
  const Tensors unet =
      low_rank("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 320, 320);
  expect_refused(flux, sd3_, ErrorCode::mismatch, "adapter of FLUX");
  expect_refused(flux, sd3_, ErrorCode::mismatch, "the model is Stable Diffusion 3");
  expect_refused(sd3, flux_, ErrorCode::mismatch, "adapter of Stable Diffusion 3");
  expect_refused(unet, flux_, ErrorCode::mismatch, "adapter of a U-Net");
  expect_refused(unet, sd3_, ErrorCode::mismatch, "the model is Stable Diffusion 3");
  expect_refused(low_rank("lora_unet_blocks_0_self_attn_q_proj", 8, 8), flux_, ErrorCode::mismatch,
                 "a diffusion transformer");
  expect_refused(low_rank("transformer_blocks.0.attn.to_k", 8, 8), flux_, ErrorCode::mismatch,
                 "Qwen-Image");
  EXPECT_NO_THROW(read(low_rank("transformer.transformer_blocks.0.attn.to_k", 8, 8), flux_));
  Indices model;
  model["unet"] = layers({"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"});
  expect_refused(flux, model, ErrorCode::mismatch, "adapter of FLUX");
}

TEST_F(TransformerAdapters, WhatCannotBeDividedSaysWhy) {
  Tensors half = low_rank(kQkv, 24, 8);
  half.erase(std::string(kQkv) + ".lora_up.weight");
  expect_refused(half, flux_, ErrorCode::bad_format, "is missing");
  expect_refused(low_rank(kQkv, 16, 8), flux_, ErrorCode::mismatch, "have 24 together");
  expect_refused(low_rank("lora_unet_single_blocks_0_linear1", 24, 8), flux_, ErrorCode::mismatch,
                 "have 56 together");
  Tensors columns = low_rank(kQkv, 24, 8);
  columns[std::string(kQkv) + ".dora_scale"] = at::ones({1, 8});
  expect_refused(columns, flux_, ErrorCode::unsupported, "input columns");
  const std::string blocks = std::string(kQkv) + ".oft_blocks";
  expect_refused({{blocks, at::randn({2, 12, 12})}}, flux_, ErrorCode::unsupported,
                 "reach over two of them");
  expect_refused({{blocks, at::randn({2, 6, 4, 4})}}, flux_, ErrorCode::unsupported, "BOFT");
  Tensors twice = low_rank(kQkv, 24, 8);
  twice.merge(low_rank("lora_unet_transformer_blocks_0_attn_to_k", 8, 8));
  expect_refused(twice, flux_, ErrorCode::bad_format, "the same layer twice");
  // A table of layers that the network lacks, and PEFT's own file without its configuration.
  expect_refused(low_rank("lora_unet_double_blocks_7_img_attn_qkv", 24, 8), flux_,
                 ErrorCode::mismatch, "not in the model");
  expect_error(ErrorCode::not_found, "adapter_config.json", [&] {
    read({{"base_model.model.proj_out.lora_A.weight", at::randn({2, 8})},
          {"base_model.model.proj_out.lora_B.weight", at::randn({8, 2})}},
         flux_, "adapter_model.safetensors");
  });
}

TEST_F(TransformerAdapters, PartsOfAFusedLayerAreWrittenWithZerosOrRefused) {
  const std::string before = "transformer.transformer_blocks.0.attn.";
  const auto rewritten = [&](const Tensors& tensors) {
    const TemporaryFolder folder;
    const ReadAdapter first = read(tensors, flux_);
    write_adapter(folder / "b.safetensors", first.set, first.info, components(flux_),
                  {.format = AdapterFormat::lycoris});
    const ReadAdapter again = read_adapter(folder / "b.safetensors", components(flux_));
    const Tensors merged = first.set.merged_weights(), other = again.set.merged_weights();
    for (const auto& [name, tensor] : merged)
      EXPECT_LE((tensor - other.at(name)).abs().max().item<double>(), 1e-6) << name;
    return io::load_tensors(folder / "b.safetensors");
  };
  Tensors two = low_rank(before + "to_q", 8, 8);
  two.merge(low_rank(before + "to_v", 8, 8));
  Tensors fused = rewritten(two);
  EXPECT_EQ(fused.at(std::string(kQkv) + ".lora_up.weight").sizes(), at::IntArrayRef({24, 4}));
  EXPECT_EQ(fused.at(std::string(kQkv) + ".alpha").item<double>(), 2.0);

  // Ranks and scales may differ.
  two[before + "to_q.alpha"] = at::scalar_tensor(5.0);
  two[before + "to_q.lora_down.weight"] = at::randn({3, 8});
  two[before + "to_q.lora_up.weight"] = at::randn({8, 3});
  fused = rewritten(two);
  EXPECT_EQ(fused.at(std::string(kQkv) + ".lora_up.weight").sizes(), at::IntArrayRef({24, 5}));

  const auto lokr = [&](const char* layer) -> Tensors {
    return {{before + layer + ".lokr_w1", at::randn({2, 2})},
            {before + layer + ".lokr_w2", at::randn({4, 4})}};
  };
  Tensors several = lokr("to_q");
  several.merge(lokr("to_k"));
  expect_error(ErrorCode::unsupported, "the same second factor", [&] { rewritten(several); });
  several[before + "to_k.lokr_w2"] = several.at(before + "to_q.lokr_w2");
  EXPECT_EQ(rewritten(several).at(std::string(kQkv) + ".lokr_w1").sizes(), at::IntArrayRef({6, 2}));
  Tensors mixed = lokr("to_q");
  mixed.merge(low_rank(before + "to_k", 8, 8));
  expect_error(ErrorCode::unsupported, "one method for all parts", [&] { rewritten(mixed); });
}

TEST_F(TransformerAdapters, BiasesBesideLoraAreWrittenInEachProgramsForm) {
  const std::string layer = "double_blocks.0.img_attn.qkv.";
  const ReadAdapter first = read({{layer + "lora_A.weight", at::randn({2, 8})},
                                  {layer + "lora_B.weight", at::randn({24, 2})},
                                  {layer + "lora_B.bias", at::randn({24})}},
                                 flux_);
  const Tensors merged = first.set.merged_weights();
  EXPECT_EQ(merged.size(), 6U);
  for (const AdapterFormat format :
       {AdapterFormat::diffusers, AdapterFormat::comfyui, AdapterFormat::peft}) {
    SCOPED_TRACE(name_of(format));
    const TemporaryFolder folder;
    const fs::path path = folder / (format == AdapterFormat::peft ? "peft" : "b.safetensors");
    write_adapter(path, first.set, first.info, components(flux_), {.format = format});
    const ReadAdapter again = read_adapter(path, components(flux_));
    const Tensors other = again.set.merged_weights();
    for (const auto& [name, tensor] : merged)
      EXPECT_LE((tensor - other.at(name)).abs().max().item<double>(), 1e-6) << name;
  }
  const TemporaryFolder folder;
  expect_error(ErrorCode::unsupported, "has no form", [&] {
    write_adapter(folder / "c.safetensors", first.set, first.info, components(flux_),
                  {.format = AdapterFormat::kohya});
  });
}

TEST_F(TransformerAdapters, FilesSayWhatTheyAreFor) {
  const TemporaryFolder folder;
  const auto written = [&](const Tensors& tensors, const Indices& model, AdapterFormat format) {
    const ReadAdapter first = read(tensors, model);
    write_adapter(folder / "b.safetensors", first.set, first.info, components(model),
                  {.format = format});
    return io::SafetensorsFile::open(folder / "b.safetensors");
  };
  auto file = written(low_rank(kQkv, 24, 8), flux_, AdapterFormat::kohya);
  EXPECT_EQ(file->metadata().at("ss_network_module"), "networks.lora_flux");
  EXPECT_EQ(file->metadata().at("ss_base_model_version"), "flux1");
  EXPECT_EQ(file->metadata().at("modelspec.architecture"), "flux-1-dev/lora");
  EXPECT_EQ(file_kind(*file), "LoRA adapter (kohya)");
  file = written(low_rank("joint_blocks.0.x_block.attn.qkv", 24, 8), sd3_, AdapterFormat::kohya);
  EXPECT_EQ(file->metadata().at("ss_network_module"), "networks.lora_sd3");
  EXPECT_EQ(file->metadata().at("modelspec.architecture"), "stable-diffusion-3/lora");
  EXPECT_TRUE(file->find("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight") != nullptr);
  file = written(low_rank(kQkv, 24, 8), flux_, AdapterFormat::comfyui);
  EXPECT_EQ(file_kind(*file), "LoRA adapter (ComfyUI)");
  EXPECT_FALSE(file->metadata().contains("ss_network_module"));
  EXPECT_TRUE(file->find("diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight") != nullptr);
  file = written(low_rank(kQkv, 24, 8), flux_, AdapterFormat::diffusers);
  EXPECT_EQ(file_kind(*file), "LoRA adapter (diffusers)");
  EXPECT_TRUE(file->find("transformer.transformer_blocks.0.attn.to_k.lora_B.weight") != nullptr);
}

TEST(TransformerTextEncoders, EveryDialectNamesClipAndT5) {
  Indices sd3;
  sd3["transformer"] = tiny_sd3();
  sd3["text_encoder"] = hollow_text(64, 1, /*projection=*/true);
  sd3["text_encoder_2"] = hollow_text(128, 1, /*projection=*/true);
  sd3["text_encoder_3"] = tiny_t5();
  const Indices flux = flux_with_encoders();
  const ModuleNames of_sd3(components(sd3)), of_flux(components(flux));
  const std::string clip = "text_model_encoder_layers_0_mlp_fc1",
                    t5 = "encoder.block.1.layer.0.SelfAttention.q",
                    flat = "encoder_block_1_layer_0_SelfAttention_q";
  const auto component = [](const ModuleNames& names, const std::string& name) {
    const auto found = names.find(name);
    return found ? found->component : "";
  };
  EXPECT_EQ(component(of_sd3, "lora_te1_" + clip), "text_encoder");
  EXPECT_EQ(component(of_sd3, "lora_te2_" + clip), "text_encoder_2");
  EXPECT_EQ(component(of_sd3, "lora_te3_" + flat), "text_encoder_3");
  EXPECT_EQ(component(of_sd3, "text_encoder_3." + t5), "text_encoder_3");
  EXPECT_EQ(component(of_sd3, "text_encoders.t5xxl.transformer." + t5), "text_encoder_3");
  EXPECT_EQ(component(of_flux, "lora_te1_" + clip), "text_encoder");
  for (const char* prefix : {"lora_te3_", "lora_te2_"})
    EXPECT_EQ(component(of_flux, prefix + flat), "text_encoder_2");
  EXPECT_EQ(component(of_flux, "text_encoder_2." + t5), "text_encoder_2");
  EXPECT_EQ(of_sd3.prefix(Naming::kohya, {"text_encoder_3", t5}), "lora_te3_" + flat);
  EXPECT_EQ(of_flux.prefix(Naming::kohya, {"text_encoder_2", t5}), "lora_te3_" + flat);
  EXPECT_EQ(of_flux.prefix(Naming::comfyui, {"text_encoder_2", t5}),
            "text_encoders.t5xxl.transformer." + t5);
  EXPECT_EQ(of_sd3.prefix(Naming::diffusers, {"text_encoder_3", t5}), "text_encoder_3." + t5);
  EXPECT_EQ(adapter_component("lora_te3_" + flat + ".alpha"), "T5");
  EXPECT_EQ(adapter_component("double_blocks.0.img_attn.qkv.lora_A.weight"), "transformer");
  EXPECT_EQ(adapter_component("lora_unet_final_layer_linear.alpha"), "transformer");
  EXPECT_EQ(adapter_component("lora_unet_time_in_in_layer.alpha"), "transformer");
  EXPECT_EQ(adapter_component("lora_unet_time_embed_0.alpha"), "unet");
  EXPECT_EQ(adapter_component("transformer.x_embedder.lora_A.weight"), "transformer");
}

}  // namespace
}  // namespace ringlet::formats
