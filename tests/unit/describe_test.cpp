#include "ringlet/pipeline/describe.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

std::int64_t parameters_of(const golden::Tensors& tensors) {
  std::int64_t sum = 0;
  for (const auto& [name, tensor] : tensors) sum += tensor.numel();
  return sum;
}

Json component(const Json& description, const std::string& name) {
  for (const Json& part : description.at("components"))
    if (part.at("name") == name) return part;
  return nullptr;
}

TEST(Describe, AModelFolder) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "model", "sdxl");
  const Json json = describe(folder / "model");
  EXPECT_EQ(json.at("kind"), "Stable Diffusion XL model folder");
  EXPECT_EQ(json.at("components").size(), 4u);
  EXPECT_TRUE(json.at("sampler").is_string());
  const auto tensors =
      golden::component_tensors(golden::pipelines().at("models").at("sdxl"), "unet");
  const Json unet = component(json, "unet");
  EXPECT_EQ(unet.at("parameters"), parameters_of(tensors));
  EXPECT_EQ(unet.at("tensors"), tensors.size());
  EXPECT_EQ(unet.at("bytes"), 4 * parameters_of(tensors));
  EXPECT_EQ(unet.at("dtypes"), Json({{"F32", parameters_of(tensors)}}));
}

TEST(Describe, ASingleFile) {
  const TemporaryFolder folder;
  auto tensors = golden::single_file_tensors("sd1");
  io::save_tensors(folder / "m.safetensors", tensors, {{"modelspec.title", "Tiny"}});
  const Json json = describe(folder / "m.safetensors");  // needs no tokenizer
  EXPECT_EQ(json.at("kind"), "Stable Diffusion 1 checkpoint");
  EXPECT_EQ(json.at("metadata").at("modelspec.title"), "Tiny");
  EXPECT_EQ(json.at("notes").size(), 1u);
  for (const char* part : {"unet", "vae", "text_encoder", "other"})
    EXPECT_FALSE(component(json, part).is_null()) << part;
  std::int64_t sum = 0;
  for (const Json& part : json.at("components")) sum += part.at("parameters").get<std::int64_t>();
  EXPECT_EQ(sum, parameters_of(tensors));
}

// What is predicted and the schedule, and from where that is known.
TEST(Describe, WhatAModelPredictsAndWhoSaysSo) {
  const TemporaryFolder folder;
  auto tensors = golden::single_file_tensors("sdxl");
  const fs::path file = folder / "m.safetensors";
  io::save_tensors(file, tensors);
  Json json = describe(file);
  EXPECT_EQ(json.at("prediction").at("type"), "epsilon");
  EXPECT_EQ(json.at("prediction").at("source"), "assumed: the file says nothing else");
  EXPECT_EQ(json.at("schedule").at("beta_schedule"), "scaled_linear");
  EXPECT_EQ(json.at("schedule").at("spacing"), "leading");
  EXPECT_NEAR(json.at("schedule").at("terminal_snr").get<double>(), 0.00468, 1e-5);

  for (const char* marker : {"v_pred", "ztsnr"}) tensors[marker] = at::zeros({0});
  io::save_tensors(file, tensors, {{"modelspec.prediction_type", "epsilon"}});
  json = describe(file);
  EXPECT_EQ(json.at("kind"), "Stable Diffusion XL (v-prediction) checkpoint");
  EXPECT_EQ(json.at("prediction"),
            Json({{"type", "v_prediction"}, {"source", "the tensor v_pred"}}));
  EXPECT_EQ(json.at("schedule").at("zero_terminal_snr"), true);
  EXPECT_EQ(json.at("schedule").at("terminal_snr"), 0.0);
  EXPECT_EQ(json.at("schedule").at("spacing"), "trailing");
  EXPECT_EQ(json.at("schedule").at("source"), "the tensor ztsnr");
  EXPECT_NE(json.at("notes").dump().find("taken for v_prediction"), std::string::npos);

  // What cannot be sampled is described all the same.
  io::save_tensors(file, golden::single_file_tensors("sdxl"),
                   {{"modelspec.prediction_type", "flow"}});
  json = describe(file);
  EXPECT_EQ(json.at("prediction").at("type"), "flow");
  EXPECT_FALSE(json.contains("schedule"));
  EXPECT_NE(json.at("notes").dump().find("it cannot generate pictures"), std::string::npos);

  golden::write_folder(folder / "model", "sd2", "fp16");
  json = describe(folder / "model", "fp16");
  EXPECT_EQ(json.at("prediction"),
            Json({{"type", "v_prediction"}, {"source", "scheduler_config.json"}}));
  EXPECT_EQ(json.at("schedule").at("training_steps"), 1000);

  golden::write_json(folder / "model/scheduler/scheduler_config.json",
                     {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}});
  json = describe(folder / "model", "fp16");
  EXPECT_EQ(json.at("prediction").at("type"), "flow_prediction");
  EXPECT_EQ(json.at("schedule").at("process"), "rectified flow");
  EXPECT_EQ(json.at("schedule").at("shift"), 3.0);
  EXPECT_EQ(json.at("sampler"), "euler");
}

TEST(Describe, AnAdapterFile) {
  const TemporaryFolder folder;
  const std::string layer = "lora_unet_down_blocks_0_attentions_0_proj_in.";
  io::save_tensors(folder / "lora.safetensors",
                   {{layer + "lora_down.weight", at::zeros({4, 32}, at::kHalf)},
                    {layer + "lora_up.weight", at::zeros({32, 4}, at::kHalf)},
                    {layer + "alpha", at::zeros({})}});
  const Json json = describe(folder / "lora.safetensors");
  EXPECT_EQ(json.at("kind"), "LoRA adapter (kohya)");
  EXPECT_EQ(component(json, "unet").at("parameters"), 257);
  EXPECT_EQ(component(json, "unet").at("dtypes"), Json({{"F16", 256}, {"F32", 1}}));
}

// Folders often hold the same weights twice, as fp16 and fp32; the index says which belong
// together.
TEST(Describe, OnlyTheShardsOfTheIndexAreCounted) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "model", "sd1");
  const fs::path unet = folder / "model/unet";
  const auto tensors = io::load_tensors(unet / "diffusion_pytorch_model.safetensors");
  fs::rename(unet / "diffusion_pytorch_model.safetensors", unet / "shard.safetensors");
  fs::copy_file(unet / "shard.safetensors", unet / "stray.safetensors");
  Json map;
  for (const auto& [name, tensor] : tensors) map[name] = "shard.safetensors";
  golden::write_json(unet / "diffusion_pytorch_model.safetensors.index.json",
                     {{"weight_map", map}});
  EXPECT_EQ(component(describe(folder / "model"), "unet").at("parameters"), parameters_of(tensors));
}

TEST(Describe, AnIndexFileOrItsFolder) {
  const TemporaryFolder folder;
  io::save_tensors(folder / "a.safetensors", {{"x", at::zeros({3})}});
  golden::write_json(folder / "m.safetensors.index.json",
                     {{"weight_map", {{"x", "a.safetensors"}}}});
  EXPECT_EQ(describe(folder.path()).at("kind"), "weights of one network");
  const Json json = describe(folder / "m.safetensors.index.json");
  EXPECT_EQ(json.at("components").at(0).at("parameters"), 3);

  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  EXPECT_NO_THROW(describe("m.safetensors.index.json"));  // a path without a folder
  fs::current_path(before);
}

TEST(Describe, WhatIsNotKnownIsAnError) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::not_found, "no such file", [&] { describe(folder / "none"); });
  expect_error(ErrorCode::not_found, "nothing here", [&] { describe(folder.path()); });
  write_file_atomically(folder / "text.txt", "this is no model, but long enough to be looked at");
  expect_error(ErrorCode::bad_format, "text.txt", [&] { describe(folder / "text.txt"); });
  fs::create_symlink("loop", folder / "loop");
  expect_error(ErrorCode::io, "loop", [&] { describe(folder / "loop"); });
}

}  // namespace
}  // namespace ringlet::pipeline
