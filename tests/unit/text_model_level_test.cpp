// Models whose text encoders lack the level "text_model." in their names, as transformers 5.6 and
// later saves them and NovelAI's checkpoints have them: they are the same models.
#include "ringlet/nn/text_model_level.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/extract.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;
using golden::Tensors;

const std::string kLayer = "encoder.layers.0.self_attn.q_proj";

/// The same tensors without the level.
Tensors flat(const Tensors& tensors) {
  Tensors out;
  for (const auto& [name, tensor] : tensors)
    out[nn::without_text_model_level(name)] = tensor.clone();
  return out;
}

void make_flat(const fs::path& folder) {
  io::save_tensors(folder / "model.safetensors",
                   flat(io::load_tensors(folder / "model.safetensors")));
}

bool has_level(const Tensors& tensors) {
  return std::ranges::any_of(tensors,
                             [](const auto& one) { return one.first.starts_with("text_model."); });
}

StableDiffusion open(const fs::path& path) {
  LoadOptions load;
  load.low_memory = true;
  return StableDiffusion::open(path, load);
}

/// Adapters on a layer of each text encoder, with numbers away from their start.
adapt::AdapterSet adapters(const StableDiffusion& model) {
  auto set = adapt::AdapterSet::create(
      adapt::parse_method("lora(rank=2)"),
      adapt::select_targets(adaptable(model), {.include = {"text_encoder*." + kLayer}}),
      adapt::FactorTable(), Random(1));
  for (const auto& [name, tensor] : set.parameters()) tensor.detach().fill_(0.25);
  return set;
}

TEST(TextModelLevel, IsPutOnAndTakenOff) {
  const std::string level = "text_model." + kLayer;
  EXPECT_EQ(nn::with_text_model_level(kLayer), level);
  EXPECT_EQ(nn::with_text_model_level(level), level);
  EXPECT_EQ(nn::without_text_model_level(level), kLayer);
  EXPECT_EQ(nn::with_text_model_level("text_projection.weight"), "text_projection.weight");
  EXPECT_EQ(nn::with_text_model_level("final_layer_norm"), "text_model.final_layer_norm");
  EXPECT_EQ(nn::other_text_spelling("text_encoder." + level), "text_encoder." + kLayer);
  EXPECT_EQ(nn::other_text_spelling("text_encoder." + kLayer), "text_encoder." + level);
  EXPECT_EQ(nn::other_text_spelling("unet.conv_in"), "");
  EXPECT_EQ(nn::other_text_spelling("nothing"), "");
}

// Both text encoders of Stable Diffusion XL: opened, merged in their own names, and extracted.
TEST(TextModelLevel, FoldersWithoutItAreOpenedMergedAndCompared) {
  const TemporaryFolder folder;
  const fs::path with = folder / "with", without = folder / "without";
  for (const fs::path& root : {with, without}) golden::write_folder(root, "sdxl");
  for (const char* part : {"text_encoder", "text_encoder_2"}) make_flat(without / part);

  const auto level = open(with), bare = open(without);
  for (const char* part : {"text_encoder", "text_encoder_2"}) {
    const auto& tensors = bare.networks().at(part).index.tensors;
    EXPECT_EQ(tensors.size(), level.networks().at(part).index.tensors.size());
    EXPECT_TRUE(tensors.contains("text_model." + kLayer + ".weight"));
  }
  EXPECT_TRUE(formats::lacks_text_model_level(*bare.files().parts.at("text_encoder").weights));
  EXPECT_FALSE(formats::lacks_text_model_level(*level.files().parts.at("text_encoder").weights));

  // An adapter that was made on one fits the other.
  adapt::save_adapter(folder / "own.safetensors", adapters(level));
  for (const auto& [model, out] : {std::pair{&level, "merged_with"}, {&bare, "merged_without"}}) {
    const auto read = formats::read_adapter(folder / "own.safetensors", adaptable(*model));
    EXPECT_EQ(read.set.entries().size(), 2U);
    const adapt::AdapterSet* const set = &read.set;
    merge_into_folder(*model, {&set, 1}, folder / out);
  }
  for (const std::string part : {"text_encoder", "text_encoder_2"}) {
    const Tensors merged = io::load_tensors(folder / ("merged_with/" + part) / "model.safetensors");
    const Tensors same =
        io::load_tensors(folder / ("merged_without/" + part) / "model.safetensors");
    EXPECT_TRUE(has_level(merged));
    EXPECT_FALSE(has_level(same));
    EXPECT_TRUE(
        at::equal(merged.at("text_model." + kLayer + ".weight"), same.at(kLayer + ".weight")));
  }
  ExtractSource source;
  source.base = with;
  source.tuned = folder / "merged_without";
  source.targets.include = {"text_encoder*"};
  const ModelDifference difference = compare_models(source);
  ASSERT_EQ(difference.layers.size(), 2U);
  EXPECT_EQ(difference.layers.front().target.full_name(), "text_encoder.text_model." + kLayer);
}

TEST(TextModelLevel, NovelAiCheckpointsAreReadAndMergedInTheirNames) {
  const TemporaryFolder folder;
  const std::string prefix = "cond_stage_model.transformer.";
  Tensors tensors;
  for (const auto& [name, tensor] : golden::single_file_tensors("sd1")) {
    const bool text = name.starts_with(prefix);
    tensors[text ? prefix + nn::without_text_model_level(name.substr(prefix.size())) : name] =
        tensor;
  }
  ASSERT_TRUE(tensors.contains(prefix + kLayer + ".weight"));
  io::save_tensors(folder / "nai.safetensors", tensors);
  golden::write_tokenizer(folder / "tokenizer", "<|endoftext|>");
  const auto model = open(folder / "nai.safetensors");
  EXPECT_TRUE(model.networks().at("text_encoder").index.layers.contains("text_model." + kLayer));
  const adapt::AdapterSet set = adapters(model);
  const adapt::AdapterSet* const one = &set;
  merge_into_file(model, {&one, 1}, folder / "merged.safetensors");
  const Tensors merged = io::load_tensors(folder / "merged.safetensors");
  EXPECT_EQ(merged.size(), tensors.size());
  EXPECT_FALSE(
      at::equal(merged.at(prefix + kLayer + ".weight"), tensors.at(prefix + kLayer + ".weight")));
  // A folder made of it has today's usual names.
  model.save(folder / "folder", {});
  EXPECT_TRUE(has_level(io::load_tensors(folder / "folder/text_encoder/model.safetensors")));
}

TEST(TextModelLevel, ATextEncoderAloneHasIt) {
  const TemporaryFolder folder;
  const Tensors text =
      golden::component_tensors(golden::pipelines().at("models").at("sd1"), "text_encoder");
  io::save_tensors(folder / "with.safetensors", text);
  io::save_tensors(folder / "without.safetensors", flat(text));
  const auto with = layers_of(nn::FileStore::open(folder / "with.safetensors")),
             without = layers_of(nn::FileStore::open(folder / "without.safetensors"));
  ASSERT_EQ(with.layers.size(), without.layers.size());
  EXPECT_TRUE(std::ranges::equal(
      with.layers, without.layers, {}, [](const auto& one) { return one.first; },
      [](const auto& one) { return one.first; }));
}

}  // namespace
}  // namespace ringlet::pipeline
