#include "ringlet/pipeline/model_files.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

const std::string kUNetFile = "unet/diffusion_pytorch_model.safetensors";

class ModelFolder : public testing::Test {
 protected:
  ModelFolder() { golden::write_folder(root(), "sd1"); }
  fs::path root() const { return folder_ / "model"; }
  void expect(ErrorCode code, std::string_view words) const {
    expect_error(code, words, [&] { StableDiffusion::open(root()); });
  }
  void edit_index(const std::function<void(Json&)>& edit) const {
    Json index = read_json_file(root() / "model_index.json");
    edit(index);
    golden::write_json(root() / "model_index.json", index);
  }
  /// Replaces the U-Net's file by two shards and their index.
  void shard_unet() const {
    const auto tensors = io::load_tensors(root() / kUNetFile);
    std::map<std::string, at::Tensor> shards[2];
    Json map;
    std::size_t i = 0;
    for (const auto& [name, tensor] : tensors) {
      const std::size_t shard = i++ % 2;
      shards[shard][name] = tensor.clone();
      map[name] = shard_name(shard);
    }
    for (const std::size_t shard : {0, 1})
      io::save_tensors(root() / "unet" / shard_name(shard), shards[shard]);
    golden::write_json(root() / "unet/diffusion_pytorch_model.safetensors.index.json",
                       {{"weight_map", map}});
    fs::remove(root() / kUNetFile);
  }
  static std::string shard_name(std::size_t shard) {
    return "diffusion_pytorch_model-0000" + std::to_string(shard + 1) + "-of-00002.safetensors";
  }

  TemporaryFolder folder_;
};

TEST_F(ModelFolder, LoadsAndSaysWhatItIs) {
  const StableDiffusion model = StableDiffusion::open(root());
  EXPECT_EQ(model.files().kind, "Stable Diffusion 1");
  EXPECT_EQ(model.files().name, "model");
  EXPECT_EQ(find_stable_diffusion(root() / "").name, "model");  // as shells complete folder names
  EXPECT_EQ(model.defaults().sampler.name(), "ddim");
  EXPECT_FALSE(model.files().inpainting);
}

TEST_F(ModelFolder, AMissingIndexIsSaid) {
  fs::remove(root() / "model_index.json");
  expect(ErrorCode::not_found, "there is no model_index.json");
}

TEST_F(ModelFolder, EveryMissingPartIsNamed) {
  for (const std::string part : {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}) {
    fs::rename(root() / part, folder_ / "away");
    expect(ErrorCode::not_found, (root() / part).string());
    fs::rename(folder_ / "away", root() / part);
  }
  for (const std::string& file : {kUNetFile, std::string("unet/config.json"),
                                  std::string("vae/diffusion_pytorch_model.safetensors"),
                                  std::string("text_encoder/model.safetensors"),
                                  std::string("scheduler/scheduler_config.json")}) {
    fs::rename(root() / file, folder_ / "away");
    expect(ErrorCode::not_found, (root() / file).string());
    fs::rename(folder_ / "away", root() / file);
  }
  EXPECT_NO_THROW(StableDiffusion::open(root()));
}

TEST_F(ModelFolder, PickledWeightsAreRefusedWithTheWayToConvert) {
  for (const char* name : {"diffusion_pytorch_model.bin", "model.ckpt", "model.pth"}) {
    fs::rename(root() / kUNetFile, root() / "unet" / name);
    expect(ErrorCode::unsupported, "only pickled weights");
    expect(ErrorCode::unsupported, "safe_serialization=True");
    fs::rename(root() / "unet" / name, root() / kUNetFile);
  }
  write_file_atomically(folder_ / "old.ckpt", "x");
  expect_error(ErrorCode::unsupported, "convert once with Python",
               [&] { find_stable_diffusion(folder_ / "old.ckpt"); });
}

TEST_F(ModelFolder, PickledCopiesBesideSafetensorsDoNotMatter) {
  write_file_atomically(root() / "unet/diffusion_pytorch_model.bin", "pickle");
  EXPECT_NO_THROW(StableDiffusion::open(root()));
}

TEST_F(ModelFolder, TheSafetyCheckerIsNotNeeded) {
  edit_index([](Json& index) { index.erase("safety_checker"); });
  EXPECT_NO_THROW(find_stable_diffusion(root()));
  edit_index([](Json& index) {  // listed, but not downloaded
    index["safety_checker"] = {"stable_diffusion", "StableDiffusionSafetyChecker"};
    index["feature_extractor"] = {"transformers", "CLIPImageProcessor"};
  });
  EXPECT_NO_THROW(find_stable_diffusion(root()));
}

TEST_F(ModelFolder, OtherPipelinesAreRefusedByName) {
  edit_index([](Json& index) { index["_class_name"] = "FluxPipeline"; });
  expect(ErrorCode::unsupported, "the model is a FluxPipeline");
  edit_index([](Json& index) { index["_class_name"] = 7; });
  expect(ErrorCode::bad_format, "_class_name");
  edit_index([](Json& index) { index.erase("_class_name"); });
  expect(ErrorCode::bad_format, "\"_class_name\" is missing");
}

TEST_F(ModelFolder, APartThatTheIndexDoesNotListIsNamed) {
  edit_index([](Json& index) { index["vae"] = {nullptr, nullptr}; });
  expect(ErrorCode::unsupported, "no part \"vae\"");
  write_file_atomically(root() / "model_index.json", "[]");
  expect(ErrorCode::bad_format, "model_index.json");
}

TEST_F(ModelFolder, AShardedUNetIsTheSameUNet) {
  const auto whole = StableDiffusion::open(root()).networks().at("unet").index.tensors;
  shard_unet();
  const auto sharded = StableDiffusion::open(root()).networks().at("unet").index.tensors;
  ASSERT_EQ(sharded.size(), whole.size());
  for (const auto& [name, tensor] : whole) EXPECT_TRUE(at::equal(sharded.at(name), tensor)) << name;
}

TEST_F(ModelFolder, AMissingShardIsNamed) {
  shard_unet();
  fs::remove(root() / "unet" / shard_name(1));
  expect(ErrorCode::not_found, shard_name(1));
}

class Variants : public testing::Test {
 protected:
  Variants() {
    for (const char* name : {"m.safetensors", "m.fp16.safetensors"})
      write_file_atomically(folder_ / name, "x");
  }
  std::string found(const std::string& variant) const {
    return find_weights(folder_.path(), "m", variant).filename();
  }
  TemporaryFolder folder_;
};

TEST_F(Variants, TheAskedForVariantIsChosen) {
  const LogCapture capture;
  EXPECT_EQ(found(""), "m.safetensors");
  EXPECT_EQ(found("fp16"), "m.fp16.safetensors");
  EXPECT_EQ(capture.warnings(), "");
}

TEST_F(Variants, AnotherOneIsTakenWithAWarning) {
  const LogCapture capture;
  EXPECT_EQ(found("ema"), "m.safetensors");
  EXPECT_NE(capture.warnings().find("no \"ema\" weights; using m.safetensors"), std::string::npos);
}

// Many published folders hold the fp16 files only.
TEST_F(Variants, Fp16AloneNeedsNoOption) {
  fs::remove(folder_ / "m.safetensors");
  const LogCapture capture;
  EXPECT_EQ(found(""), "m.fp16.safetensors");
  EXPECT_EQ(capture.warnings(), "");
}

TEST_F(Variants, ShardIndexesOfBothSpellings) {
  fs::remove(folder_ / "m.fp16.safetensors");
  write_file_atomically(folder_ / "m.safetensors.index.fp16.json", "{}");
  EXPECT_EQ(found("fp16"), "m.safetensors.index.fp16.json");
  fs::rename(folder_ / "m.safetensors.index.fp16.json", folder_ / "m.safetensors.fp16.index.json");
  EXPECT_EQ(found("fp16"), "m.safetensors.fp16.index.json");
}

TEST(FindModel, AnFp16FolderLoads) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "model", "sd1", "fp16");
  const StableDiffusion model = StableDiffusion::open(folder / "model");
  EXPECT_EQ(model.networks().at("unet").index.tensors.begin()->second.scalar_type(), at::kFloat);
  EXPECT_EQ(model.files().hash_files.front().filename(),
            "diffusion_pytorch_model.fp16.safetensors");
}

TEST(FindModel, WhatIsNoModelIsSaid) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::invalid_argument, "model: ", [] { find_stable_diffusion(""); });
  expect_error(ErrorCode::not_found, "the model does not exist",
               [&] { find_stable_diffusion(folder / "none"); });
  expect_error(ErrorCode::not_found, "does not download models",
               [] { find_stable_diffusion("runwayml/stable-diffusion-v1-5"); });
  expect_error(ErrorCode::not_found, "no model_index.json",
               [&] { find_stable_diffusion(folder.path()); });
}

// std::filesystem's own exceptions must not leave the library, nor be called a defect.
TEST(FindModel, PathsThatTheSystemRefusesAreInputErrors) {
  const TemporaryFolder folder;
  fs::create_symlink("loop", folder / "loop");
  expect_error(ErrorCode::io, "loop", [&] { find_stable_diffusion(folder / "loop"); });
  expect_error(ErrorCode::io, "aaa",
               [&] { find_stable_diffusion(folder / std::string(5000, 'a')); });
  expect_error(ErrorCode::io, "loop", [&] { StableDiffusion::open(folder / "loop"); });
}

}  // namespace
}  // namespace ringlet::pipeline
