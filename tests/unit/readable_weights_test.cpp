// Weights of 8 bits, and files that other programs have quantised.
#include "ringlet/formats/readable_weights.h"

#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_original_file.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;
using golden::Tensors;

class ReadableWeights : public testing::Test {
 protected:
  fs::path save(const Tensors& tensors, const io::Metadata& metadata = {}) const {
    io::save_tensors(folder_ / "m.safetensors", tensors, metadata);
    return folder_ / "m.safetensors";
  }
  std::shared_ptr<const nn::TensorStore> open(const Tensors& tensors,
                                              const io::Metadata& metadata = {}) const {
    return readable_weights(nn::FileStore::open(save(tensors, metadata)));
  }
  TemporaryFolder folder_;
};

at::Tensor bytes_of(const std::string& text) {
  at::Tensor bytes = at::zeros({static_cast<std::int64_t>(text.size())}, at::kByte);
  for (std::size_t i = 0; i < text.size(); ++i)
    bytes[static_cast<std::int64_t>(i)] = static_cast<int>(static_cast<unsigned char>(text[i]));
  return bytes;
}

TEST_F(ReadableWeights, Fp8IsWidenedToItsOwnValues) {
  const at::Tensor numbers = golden::weight("numbers", {6, 4});
  for (const at::ScalarType type : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const at::Tensor narrow = numbers.to(type);
    const auto store = open({{"a.weight", narrow}, {"a.bias", numbers[0]}});
    EXPECT_EQ(store->names(), (std::vector<std::string>{"a.bias", "a.weight"}));
    const at::Tensor found = store->find("a.weight", {}, {}).value();
    EXPECT_EQ(found.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(found.to(at::kFloat).equal(narrow.to(at::kFloat)));
    EXPECT_TRUE(store->find("a.bias", {}, {}).value().equal(numbers[0]));
  }
}

TEST_F(ReadableWeights, ScalesBesideFp8AreApplied) {
  const at::Tensor narrow = golden::weight("numbers", {6, 4}).to(at::kFloat8_e4m3fn);
  const at::Tensor rows = at::tensor({0.5f, 1.f, 2.f, 3.f, 4.f, 5.f});
  const at::Tensor marker = at::zeros({2}).to(at::kFloat8_e4m3fn);
  const auto expect = [&](const Tensors& more, const at::Tensor& scale) {
    Tensors tensors = {{"a.weight", narrow}, {"scaled_fp8", marker}};
    tensors.insert(more.begin(), more.end());
    const auto store = open(tensors);
    EXPECT_EQ(store->names(), std::vector<std::string>{"a.weight"});
    EXPECT_TRUE(store->find("a.weight", {}, {}).value().equal(narrow.to(at::kFloat) * scale));
  };
  expect({{"a.scale_weight", at::tensor(0.25f)}, {"a.scale_input", at::tensor(1.f)}},
         at::tensor(0.25f));
  expect({{"a.weight_scale", at::tensor({0.25f})},
          {"a.comfy_quant", bytes_of(R"({"format": "float8_e4m3fn"})")}},
         at::tensor(0.25f));
  expect({{"a.weight_scale", rows}}, rows.view({6, 1}));
  expect({{"a.scale_weight", rows.view({6, 1})}}, rows.view({6, 1}));
  expect_error(ErrorCode::unsupported, "neither one scale nor one for each output row", [&] {
    open({{"a.weight", narrow}, {"a.scale_weight", at::zeros({3})}})->find("a.weight", {}, {});
  });
}

TEST_F(ReadableWeights, FilesThatOthersQuantisedAreNamed) {
  const at::Tensor codes = at::zeros({4, 2}, at::kByte), ints = at::zeros({4, 2}, at::kInt);
  const at::Tensor one = at::zeros({1});
  const auto refused = [&](const Tensors& tensors, const char* program,
                           const io::Metadata& metadata = {}) {
    expect_error(ErrorCode::unsupported, program, [&] { open(tensors, metadata); });
    expect_error(ErrorCode::unsupported, "as it was published", [&] { open(tensors, metadata); });
  };
  refused({{"a.weight", codes}, {"a.weight.absmax", one}}, "bitsandbytes (4 bits)");
  refused({{"a.weight.quant_state.bitsandbytes__nf4", codes}, {"a.weight", codes}},
          "bitsandbytes (nf4)");
  refused({{"a.weight", at::zeros({4, 2}, at::kChar)}, {"a.SCB", one}}, "bitsandbytes (int8)");
  refused({{"a.qweight", ints}, {"a.qzeros", ints}, {"a.scales", one}, {"a.g_idx", ints}}, "GPTQ");
  refused({{"a.qweight", ints}, {"a.qzeros", ints}, {"a.scales", one}}, "AWQ");
  refused({{"a.qweight", codes}, {"a.wscales", one}, {"a.smooth_factor", one}},
          "Nunchaku (SVDQuant)");
  refused({{"a.weight._data", codes}, {"a.weight._scale", one}}, "Quanto");
  refused({{"a.weight", codes}, {"a.weight_scale", one}, {"a.weight_scale_2", one}}, "nvfp4");
  refused({{"a.weight", one}, {"a.comfy_quant", bytes_of(R"({"format": "mxfp8"})")}}, "mxfp8");
  refused({{"a.weight", one}}, "another program", {{"quantization_config", "{}"}});
  refused({{"a.weight", at::zeros({4, 2}, at::kChar)}}, "tensor \"a.weight\", of type I8");
}

TEST_F(ReadableWeights, ModelsInFp8AreTheirWidenedModels) {
  const at::NoGradGuard no_grad;
  golden::write_tokenizers_beside(folder_.path());
  const auto latents = [&](const fs::path& path) {
    pipeline::LoadOptions load;
    load.files.text_tokens = 16;
    const auto model = pipeline::open_text_to_image_model(path, load);
    pipeline::GenerateRequest request;
    request.prompt = "a dog";
    request.size = {32, 32};
    request.steps = 2;
    return pipeline::sample(*model, request);
  };
  // Matrices in fp8 with a scale for all, and what they mean in fp32.
  Tensors narrow, wide;
  for (const auto& [name, tensor] : golden::original_file_tensors("flux_schnell")) {
    narrow[name] = wide[name] = tensor;
    const bool matrix = tensor.dim() == 2 && !name.starts_with("first_stage_model.");
    if (!matrix) continue;
    narrow[name] = tensor.to(at::kFloat8_e4m3fn);
    wide[name] = 0.5 * narrow[name].to(at::kFloat);
    narrow[name.substr(0, name.rfind('.')) + ".scale_weight"] = at::tensor(0.5f);
  }
  const at::Tensor want = latents(save(wide));
  EXPECT_TRUE(latents(save(narrow)).equal(want));
  // It is written widened and without scales: a change would not survive in fp8.
  const auto model = pipeline::open_text_to_image_model(folder_ / "m.safetensors");
  model->save_file(folder_ / "written.safetensors", {});
  const Tensors written = io::load_tensors(folder_ / "written.safetensors");
  ASSERT_EQ(written.size(), wide.size());
  for (const auto& [name, tensor] : wide) EXPECT_TRUE(written.at(name).equal(tensor)) << name;
  EXPECT_TRUE(latents(folder_ / "written.safetensors").equal(want));

  // A diffusers folder whose transformer is stored in fp8, of either kind.
  const fs::path sd35 = folder_ / "model";
  golden::write_flow_folder(sd35, "sd35");
  const fs::path weights = sd35 / "transformer/diffusion_pytorch_model.safetensors";
  const Tensors own = io::load_tensors(weights);
  for (const at::ScalarType type : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    Tensors in_fp8, in_fp32;
    for (const auto& [name, tensor] : own) {
      in_fp8[name] = tensor.dim() == 2 ? tensor.to(type) : tensor;
      in_fp32[name] = in_fp8[name].to(at::kFloat);
    }
    io::save_tensors(weights, in_fp32);
    const at::Tensor expected = latents(sd35);
    io::save_tensors(weights, in_fp8);
    EXPECT_TRUE(latents(sd35).equal(expected));
  }
}

TEST_F(ReadableWeights, FoldersAndNamesOfOtherProgramsAreRefusedWithTheWayOut) {
  const fs::path model = folder_ / "model";
  golden::write_flow_folder(model, "flux_dev");
  const auto refused = [&](const fs::path& path, const char* words) {
    expect_error(ErrorCode::unsupported, words, [&] { pipeline::open_text_to_image_model(path); });
  };
  const fs::path file = model / "transformer/config.json";
  const Json config = read_json_file(file);
  Json quantised = config;
  quantised["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
  golden::write_json(file, quantised);
  refused(model, "quantised by bitsandbytes");
  golden::write_json(file, config);
  const fs::path weights = model / "transformer/diffusion_pytorch_model.safetensors";
  fs::rename(weights, model / "transformer/flux1-dev-Q4_K.gguf");
  refused(model, "only GGUF weights");
  write_file_atomically(folder_ / "flux.gguf", "GGUF");
  refused(folder_ / "flux.gguf", "base_storage=nf4");
  write_file_atomically(folder_ / "renamed.safetensors", "GGUF and more bytes");
  refused(folder_ / "renamed.safetensors", "a GGUF file");
  write_file_atomically(folder_ / "flux.ckpt", "pickle");
  refused(folder_ / "flux.ckpt", "pickle files can run code");
}

}  // namespace
}  // namespace ringlet::formats
