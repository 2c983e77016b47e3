#include "ringlet/formats/ldm/single_file.h"

#include <gtest/gtest.h>

#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

using Tensors = golden::Tensors;

SingleFileModel open(const Tensors& tensors, const io::Metadata& metadata = {}) {
  return open_single_file(std::make_shared<nn::MapStore>(tensors, "model.safetensors"), metadata);
}

Tensors without(Tensors tensors, const std::string& prefix) {
  std::erase_if(tensors, [&](const auto& entry) { return entry.first.starts_with(prefix); });
  return tensors;
}

const at::Tensor kOne = at::zeros({1});

TEST(SingleFile, TheKindIsReadFromTheTensors) {
  EXPECT_EQ(open(golden::single_file_tensors("sd1")).kind, "Stable Diffusion 1");
  EXPECT_EQ(open(golden::single_file_tensors("sdxl")).kind, "Stable Diffusion XL");
  EXPECT_TRUE(open(golden::single_file_tensors("sd2")).kind.starts_with("Stable Diffusion 2"));
  EXPECT_TRUE(open(golden::single_file_tensors("sdxl")).sdxl());
  EXPECT_FALSE(open(golden::single_file_tensors("sd1")).sdxl());
}

TEST(SingleFile, OtherFamiliesAreNamed) {
  const auto expect = [](const char* tensor, const char* family) {
    expect_error(ErrorCode::unsupported, family, [&] { open({{tensor, kOne}}); });
  };
  expect("model.diffusion_model.joint_blocks.0.x", "Stable Diffusion 3");
  expect("double_blocks.0.img_mod.lin.weight", "layers of FLUX");
  expect("control_model.input_blocks.0.0.weight", "a ControlNet");
  expect("lora_unet_down_blocks_0.lora_up.weight", "a LoRA adapter");
  expect("conditioner.embedders.0.model.ln_final.weight", "SDXL refiner");
  for (const char* tensor : {"edm_vpred.sigma_max", "edm_vpred.sigma_min"})
    expect(tensor, "CosXL (v-prediction in EDM's form)");
  for (const char* tensor : {"edm_mean", "edm_std"}) expect(tensor, "Playground v2.5 (EDM)");
  expect("something.else", "not a single-file Stable Diffusion checkpoint");
  expect_error(ErrorCode::unsupported, "not a single-file", [] { open({}); });
}

TEST(SingleFile, MissingPartsAreNamed) {
  const Tensors tensors = golden::single_file_tensors("sd1");
  expect_error(ErrorCode::unsupported, "without its text encoder",
               [&] { open(without(tensors, "cond_stage_model.")); });
  expect_error(ErrorCode::unsupported, "no autoencoder",
               [&] { open(without(tensors, "first_stage_model.")); });
  expect_error(ErrorCode::unsupported, "not a single-file",
               [&] { open(without(tensors, "model.diffusion_model.")); });
}

TEST(SingleFile, TensorsOutsideTheModelAreListed) {
  Tensors tensors = golden::single_file_tensors("sd1");
  tensors["model_ema.decay"] = kOne;
  EXPECT_EQ(open(tensors).ignored, (std::vector<std::string>{"alphas_cumprod", "model_ema.decay"}));
}

// Every tensor taken away in turn: an Error, never a crash, a loop or a defect of ringlet.
TEST(SingleFile, EveryMissingTensorIsAnInputError) {
  const Tensors tensors = golden::single_file_tensors("sd1");
  for (const auto& [name, tensor] : tensors) {
    Tensors damaged = tensors;
    damaged.erase(name);
    try {
      const SingleFileModel model = open(damaged);
      for (const auto* part : {&model.unet, &model.vae, &model.text_encoder})
        EXPECT_TRUE(part->config.is_object());
    } catch (const Error& error) {
      EXPECT_NE(error.code(), ErrorCode::internal) << name << ": " << error.what();
    }
  }
}

class SingleFileOnDisk : public testing::Test {
 protected:
  void save(const Tensors& tensors) const { io::save_tensors(path(), tensors); }
  std::filesystem::path path() const { return folder_ / "model.safetensors"; }
  TemporaryFolder folder_;
};

TEST_F(SingleFileOnDisk, AMissingTokenizerIsSaidWithTheWayOut) {
  save(golden::single_file_tensors("sd1"));
  expect_error(ErrorCode::not_found, "does not carry its tokenizer",
               [&] { pipeline::StableDiffusion::open(path()); });
  expect_error(ErrorCode::not_found, "`tokenizer=FOLDER`",
               [&] { pipeline::StableDiffusion::open(path()); });
}

TEST_F(SingleFileOnDisk, TheTokenizerIsFoundBesideTheFileOrWhereTold) {
  save(golden::single_file_tensors("sd1"));
  golden::write_tokenizer(folder_ / "elsewhere", "<|endoftext|>");
  pipeline::LoadOptions options;
  options.files.tokenizer = folder_ / "elsewhere";
  EXPECT_NO_THROW(pipeline::StableDiffusion::open(path(), options));
  golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
  EXPECT_NO_THROW(pipeline::StableDiffusion::open(path()));
}

TEST_F(SingleFileOnDisk, EveryTensorMissingOrOfAnotherShapeIsNoDefect) {
  golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
  const Tensors tensors = golden::single_file_tensors("sd1");
  std::size_t refused = 0, tried = 0;
  const auto attempt = [&](const Tensors& damaged, const std::string& name) {
    save(damaged);
    ++tried;
    try {
      pipeline::StableDiffusion::open(path());
    } catch (const Error& error) {
      ++refused;
      EXPECT_NE(error.code(), ErrorCode::internal) << name << ": " << error.what();
    }
  };
  for (const auto& [name, tensor] : tensors) {
    if (name == "alphas_cumprod") continue;  // nobody reads it
    Tensors damaged = tensors;
    damaged.erase(name);  // one kind of damage per tensor, in turn
    if (tried % 3 == 1) damaged[name] = at::zeros({3, 5});
    if (tried % 3 == 2) damaged[name] = at::zeros({});
    attempt(damaged, name);
  }
  EXPECT_EQ(refused, tried);
}

}  // namespace
}  // namespace ringlet::formats
