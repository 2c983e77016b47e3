#include "ringlet/pipeline/picture_text.h"

#include <locale>

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/version.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

GenerateRequest request() {
  GenerateRequest request;
  request.prompt = "a cat, (sitting:1.2)";
  request.negative_prompt = "blurry";
  request.steps = 20;
  request.guidance = 7.5;
  request.size = {512, 768};
  request.sampler = diffusion::find_sampler("dpmpp-2m-karras");
  return request;
}

std::string text_of(const GenerateRequest& request, std::uint64_t seed = 1234567890123) {
  ModelFiles model;
  model.name = "tiny";
  return generation_parameters(request, seed, model, "0123456789abcdef0123456789abcdef");
}

const std::string kVersionText = std::string(", Version: ringlet ") + std::string(kVersion);

// SD web UIs and picture managers parse exactly this.
TEST(PictureText, HasTheFormOfWebUis) {
  EXPECT_EQ(text_of(request()),
            "a cat, (sitting:1.2)\nNegative prompt: blurry\n"
            "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 1234567890123, "
            "Size: 512x768, Model hash: 0123456789, Model: tiny" +
                kVersionText);
}

TEST(PictureText, ANegativePromptThatSaysNothingIsLeftOut) {
  GenerateRequest plain = request();
  for (const std::optional<std::string>& negative :
       {std::optional<std::string>(), std::optional<std::string>("")}) {
    plain.negative_prompt = negative;
    EXPECT_TRUE(text_of(plain).starts_with("a cat, (sitting:1.2)\nSteps: 20, ")) << text_of(plain);
  }
}

TEST(PictureText, EverythingThatChangesThePictureIsSaid) {
  GenerateRequest special = request();
  special.clip_skip = 2;
  special.guidance = 7.0;
  special.guidance_rescale = 0.7;
  special.eta = 0.5;
  special.init_image = io::Image{1, 1, {0, 0, 0}};
  special.strength = 0.35;
  const std::string text = text_of(special);
  EXPECT_NE(text.find("CFG scale: 7, "), std::string::npos) << text;
  EXPECT_TRUE(
      text.ends_with(", Clip skip: 2, CFG Rescale phi: 0.7, Eta: 0.5, "
                     "Denoising strength: 0.35" +
                     kVersionText))
      << text;
}

TEST(PictureText, TheLargestSeedIsExact) {
  EXPECT_NE(text_of(request(), ~std::uint64_t{0}).find("Seed: 18446744073709551615, "),
            std::string::npos);
}

/// German number format without needing the system's locale files.
struct GermanNumbers : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

// A program around the library may have set a locale: "CFG scale: 7,5" would not be read back.
TEST(PictureText, DoesNotDependOnTheLocale) {
  const std::string want = text_of(request());
  const std::locale before =
      std::locale::global(std::locale(std::locale::classic(), new GermanNumbers));
  const std::string actual = text_of(request());
  std::locale::global(before);
  EXPECT_EQ(actual, want);
}

TEST(PictureText, TheModelHashIsTheFiles) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "unet.safetensors", "abc");
  ModelFiles model;
  model.hash_files = {folder / "unet.safetensors"};
  EXPECT_EQ(model_hash(model), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace ringlet::pipeline
