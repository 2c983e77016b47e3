// `ringlet generate` from the command line to the files, on the tiny models.
#include "ringlet/core/json.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/version.h"
#include "ringlet/diffusion/sampler_table.h"
#include "tests/e2e/tiny_program_test.h"

namespace ringlet::e2e {
namespace {

class Generate : public TinyProgram {
 protected:
  Generate() { write_model("sd1"); }

  /// A small picture of two steps with seed 5, and more.
  ProgramResult generate(const Arguments& more, const ProgramOptions& options = {}) const {
    return expect_success(arguments(more), options);
  }
  Arguments arguments(const Arguments& more) const {
    Arguments all = {"generate", "--model", path("model")};
    for (const auto& [option, value] :
         std::vector<std::pair<std::string, std::string>>{{"--prompt", "a cat"},
                                                          {"--steps", "2"},
                                                          {"--width", "64"},
                                                          {"--height", "48"},
                                                          {"--sampler", "ddim"},
                                                          {"--seed", "5"}}) {
      const bool given = std::ranges::find(more, option) != more.end();
      const bool other_prompts =
          option == "--prompt" && std::ranges::find(more, "--prompts") != more.end();
      if (!given && !other_prompts) all.insert(all.end(), {option, value});
    }
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::vector<std::uint8_t> pixels(const std::string& name) const {
    return io::read_image(folder_ / name).pixels;
  }
  std::string parameters(const std::string& name) const {
    return io::read_png_text(folder_ / name)["parameters"];
  }
};

TEST_F(Generate, StaysWithinALimit) {
  const Json free = parse_json(
      generate({"--memory-limit", "100G", "--json", "--out", path("free.png")}).out, "free");
  const auto expected = free.at("expected_bytes").get<double>();
  EXPECT_NEAR(expected / free.at("peak_bytes").get<double>(), 1.0, 0.15);
  // The same picture as without a limit.
  generate({"--out", path("plain.png")});
  EXPECT_EQ(pixels("free.png"), pixels("plain.png"));
  const ProgramResult refused =
      run_program(arguments({"--memory-limit", "1M", "--out", path("none.png")}));
  EXPECT_EQ(refused.status, 9);
  EXPECT_NE(refused.err.find("the smallest limit that is enough is --memory-limit"),
            std::string::npos)
      << refused.err;
}

class GenerateWith : public TinyProgram, public testing::WithParamInterface<const char*> {};

TEST_P(GenerateWith, APictureThatSaysHowItWasMade) {
  const fs::path model = write_model(GetParam());
  const ProgramResult result =
      expect_success({"generate",          "--model",    model.string(), "--prompt", "a cat",
                      "--negative-prompt", "dogs",       "--steps",      "3",        "--sampler",
                      "euler-ancestral",   "--guidance", "6.5",          "--seed",   "5",
                      "--width",           "64",         "--height",     "48",       "--out",
                      path("cat.png")});
  EXPECT_EQ(result.out, path("cat.png") + "\n");
  const io::Image image = io::read_image(folder_ / "cat.png");
  EXPECT_EQ(image.width, 64);
  EXPECT_EQ(image.height, 48);
  const bool file = !fs::is_directory(model);
  const std::string hash =
      sha256_file(file ? model : model / "unet/diffusion_pytorch_model.safetensors");
  EXPECT_EQ(io::read_png_text(folder_ / "cat.png")["parameters"],
            "a cat\nNegative prompt: dogs\nSteps: 3, Sampler: " +
                diffusion::find_sampler("euler-ancestral").label() +
                ", CFG scale: 6.5, Seed: 5, Size: 64x48, Model hash: " + hash.substr(0, 10) +
                ", Model: model, Version: ringlet " + kVersion);
}

INSTANTIATE_TEST_SUITE_P(Models, GenerateWith, testing::Values("sd1", "sd2", "sdxl", "sd1-file"),
                         [](const auto& each) {
                           std::string name = each.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_F(Generate, SeveralImagesAndTheirGrid) {
  generate({"--images", "3", "--grid", "--out", path("out")});
  EXPECT_EQ(names_in(folder_ / "out"),
            (std::set<std::string>{"00001-5.png", "00002-6.png", "00003-7.png", "grid-00003.png"}));
  EXPECT_NE(pixels("out/00001-5.png"), pixels("out/00002-6.png"));
  const io::Image grid = io::read_image(folder_ / "out/grid-00003.png");
  EXPECT_EQ(grid.width, 2 * 64);
  EXPECT_EQ(grid.height, 2 * 48);
}

TEST_F(Generate, SeveralImagesBesideANamedFile) {
  generate({"--images", "2", "--out", path("cat.png")});
  EXPECT_TRUE(fs::exists(folder_ / "cat-1.png"));
  EXPECT_TRUE(fs::exists(folder_ / "cat-2.png"));
  EXPECT_FALSE(fs::exists(folder_ / "cat.png"));
}

TEST_F(Generate, NothingInAFolderIsOverwritten) {
  generate({"--out", path("out")});
  const std::string first = read_bytes(folder_ / "out/00001-5.png");
  generate({"--prompt", "a dog", "--out", path("out")});
  EXPECT_EQ(names_in(folder_ / "out"), (std::set<std::string>{"00001-5.png", "00002-5.png"}));
  EXPECT_EQ(read_bytes(folder_ / "out/00001-5.png"), first);
}

TEST_F(Generate, SeveralPromptsInTheirOrder) {
  generate({"--prompt", "a dog", "--prompt", "a cat", "--out", path("out")});
  EXPECT_TRUE(parameters("out/00001-5.png").starts_with("a dog\n"));
  EXPECT_TRUE(parameters("out/00002-5.png").starts_with("a cat\n"));
}

TEST_F(Generate, TheSpacingOfTheStepsIsAnOption) {
  generate({"--out", path("own.png")});
  generate({"--spacing", "trailing", "--out", path("trailing.png")});
  EXPECT_NE(pixels("own.png"), pixels("trailing.png"));
  EXPECT_NE(parameters("trailing.png").find(", Timestep spacing: trailing"), std::string::npos);
  EXPECT_EQ(parameters("own.png").find("spacing"), std::string::npos);
  for (const Arguments& more :
       {Arguments{"--spacing", "karras"}, Arguments{"--spacing", "trailing", "--sampler", "lcm"}}) {
    const ProgramResult refused = run_program(arguments(more));
    EXPECT_EQ(refused.status, 2);
    EXPECT_NE(refused.err.find("--spacing"), std::string::npos) << refused.err;
  }
}

// Said once, whatever the number of pictures.
TEST_F(Generate, WordsOfEmbeddingsThatNoPromptUsesOrThatStandInsideOthersAreSaid) {
  io::save_tensors(folder_ / "cat.safetensors", {{"emb_params", at::zeros({1, 64})}});
  const auto warnings = [&](const char* prompt, const char* word) {
    const std::string embedding = path("cat.safetensors") + ":" + word;
    return generate({"--embedding", embedding, "--prompt", prompt, "--images", "2",
                     "--negative-prompt", "<bad>", "--out", path("out")})
        .err;
  };
  const auto count = [](const std::string& text, const std::string& words) {
    std::size_t found = 0;
    for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1))
      ++found;
    return found;
  };
  const std::string unused = warnings("a dog", "<cat>");
  EXPECT_EQ(count(unused, "no prompt uses the word \"<cat>\" of an embedding"), 1u) << unused;
  const std::string inside = warnings("concatenate", "cat");
  EXPECT_EQ(count(inside, "the word \"cat\" of an embedding is part of \"concatenate\""), 1u)
      << inside;
  EXPECT_EQ(count(inside, "no prompt uses"), 0u);
  for (const auto& [prompt, word] :
       {std::pair{"a Cat, two", "cat"}, std::pair{"<cat>s", "<cat>"}, std::pair{"a dog", "<bad>"}})
    EXPECT_EQ(count(warnings(prompt, word), "warning"), 0u) << prompt;
}

TEST_F(Generate, AByteOrderMarkIsNoPartOfAPromptOrOfAConfigFile) {
  const std::string mark = "\xEF\xBB\xBF";
  std::ofstream(folder_ / "p.txt") << mark << "a dog\n";
  std::ofstream(folder_ / "c.toml") << mark << "steps = 2\n";
  generate({"--prompts", path("p.txt"), "--out", path("file.png"), "--config", path("c.toml")});
  generate({"--prompt", mark + "a dog", "--out", path("option.png")});
  EXPECT_TRUE(parameters("file.png").starts_with("a dog\n"));
  EXPECT_TRUE(parameters("option.png").starts_with("a dog\n"));
}

TEST_F(Generate, PromptsOfAFile) {
  std::ofstream(folder_ / "p.txt") << "a dog\r\n\na caf\xc3\xa9";
  generate({"--prompts", path("p.txt"), "--out", path("out")});
  EXPECT_EQ(names_in(folder_ / "out").size(), 2u);
  EXPECT_TRUE(parameters("out/00001-5.png").starts_with("a dog\n"));
  EXPECT_TRUE(parameters("out/00002-5.png").starts_with("a caf\xc3\xa9\n"));
}

TEST_F(Generate, TheSameSeedGivesTheSameBytes) {
  generate({"--out", path("a.png")});
  generate({"--out", path("b.png")});
  generate({"--seed", "6", "--out", path("c.png")});
  EXPECT_EQ(read_bytes(folder_ / "a.png"), read_bytes(folder_ / "b.png"));
  EXPECT_NE(read_bytes(folder_ / "a.png"), read_bytes(folder_ / "c.png"));
}

TEST_F(Generate, ABatchChangesNoImage) {
  generate({"--images", "4", "--batch-size", "4", "--out", path("out")});
  generate({"--seed", "7", "--out", path("alone.png")});
  EXPECT_EQ(pixels("out/00003-7.png"), pixels("alone.png"));
}

TEST_F(Generate, SeedsMayHaveLeadingZerosAndAll64Bits) {
  generate({"--seed", "010", "--out", path("out")});
  generate({"--seed", "18446744073709551615", "--out", path("out")});
  EXPECT_EQ(names_in(folder_ / "out"),
            (std::set<std::string>{"00001-10.png", "00002-18446744073709551615.png"}));
}

TEST_F(Generate, LatentsOfAllImages) {
  generate({"--images", "3", "--batch-size", "2", "--output-type", "latent", "--out",
            path("l.safetensors")});
  const auto tensors = io::load_tensors(folder_ / "l.safetensors");
  ASSERT_EQ(tensors.size(), 1u);
  const auto unit = 64 / tensors.at("latents").size(3);
  EXPECT_EQ(tensors.at("latents").sizes().vec(),
            (std::vector<std::int64_t>{3, 4, 48 / unit, 64 / unit}));
  const auto metadata = io::SafetensorsFile::open(folder_ / "l.safetensors")->metadata();
  EXPECT_NE(metadata.at("parameters").find("a cat\nSteps: 2, "), std::string::npos);
}

TEST_F(Generate, GivenLatentsReplaceTheSeed) {
  generate({"--output-type", "latent", "--out", path("size.safetensors")});
  const at::Tensor size = io::load_tensors(folder_ / "size.safetensors").at("latents");
  io::save_tensors(folder_ / "noise.safetensors",
                   {{"latents", 1.5 * golden::uniform("noise", size.sizes().vec())}});
  generate({"--latents", path("noise.safetensors"), "--out", path("a.png")});
  generate({"--latents", path("noise.safetensors"), "--seed", "6", "--out", path("b.png")});
  generate({"--out", path("c.png")});
  EXPECT_EQ(pixels("a.png"), pixels("b.png"));
  EXPECT_NE(pixels("a.png"), pixels("c.png"));
}

TEST_F(Generate, FromAPicture) {
  generate({"--out", path("a.png")});
  const auto change = [&](const std::string& strength) {
    const std::string name = strength + ".png";
    generate({"--init-image", path("a.png"), "--steps", "10", "--prompt", "a dog", "--strength",
              strength, "--out", path(name)});
    EXPECT_NE(parameters(name).find("Denoising strength: " + strength), std::string::npos);
    return pixels(name);
  };
  const auto little = change("0.2");
  EXPECT_EQ(little.size(), pixels("a.png").size());
  EXPECT_NE(little, change("0.9"));
}

TEST_F(Generate, AConfigFileEqualsTheOptions) {
  std::ofstream(folder_ / "c.toml") << "model = \"" << path("model")
                                    << "\"\nprompt = [\"a cat\"]\nsteps = 2\nwidth = 64\n"
                                       "height = 48\nsampler = \"ddim\"\nseed = 5\n";
  generate({"--out", path("a.png")});
  expect_success({"generate", "--config", path("c.toml"), "--out", path("b.png")});
  EXPECT_EQ(read_bytes(folder_ / "a.png"), read_bytes(folder_ / "b.png"));
}

TEST_F(Generate, TheCommandLineWinsOverTheConfigFile) {
  std::ofstream(folder_ / "c.toml") << "steps = 4\nseed = 9\nclip-skip = 2\n";
  generate({"--config", path("c.toml"), "--steps", "3", "--out", path("a.png")});
  const std::string text = parameters("a.png");
  EXPECT_NE(text.find("Steps: 3, "), std::string::npos) << text;
  EXPECT_NE(text.find("Clip skip: 2"), std::string::npos) << text;
}

TEST_F(Generate, JsonListsTheFiles) {
  const ProgramResult result = generate({"--images", "2", "--json", "--out", path("out")});
  const Json json = parse_json(result.out, "stdout");
  ASSERT_EQ(json.at("images").size(), 2u);
  for (const Json& image : json.at("images")) {
    EXPECT_TRUE(fs::exists(image.at("file").get<std::string>()));
    EXPECT_EQ(image.at("prompt"), "a cat");
    EXPECT_EQ(image.at("width"), 64);
    EXPECT_EQ(image.at("sampler"), "ddim");
  }
  EXPECT_EQ(json.at("images")[1].at("seed"), 6);
  EXPECT_EQ(json.at("model").at("kind"), "Stable Diffusion 1");
  EXPECT_EQ(json.at("model").at("sha256").get<std::string>().size(), 64u);
  EXPECT_EQ(json.at("precision"), "fp32");
}

TEST_F(Generate, QuietSaysNothing) {
  EXPECT_EQ(generate({"--quiet", "--out", path("a.png")}).err, "");
}

TEST_F(Generate, AVariantThatIsNotThereIsSaid) {
  const ProgramResult result = generate({"--variant", "bf16", "--out", path("a.png")});
  EXPECT_NE(result.err.find("warning: "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("has no \"bf16\" weights; using diffusion_pytorch_model.safetensors"),
            std::string::npos)
      << result.err;
}

TEST_F(Generate, AnEmptyPromptIsAPrompt) {
  generate({"--prompt", "", "--out", path("a.png")});
  EXPECT_TRUE(parameters("a.png").starts_with("\nSteps: 2, "));
}

TEST_F(Generate, RunsFromAnyFolderWithoutEnvironment) {
  Arguments relative = arguments({"--threads", "1", "--out", "a.png"});
  relative[2] = "model";
  const ProgramResult result =
      expect_success(relative, {.folder = folder_.path(), .environment = Arguments{}});
  EXPECT_EQ(result.out, "a.png\n");
  EXPECT_EQ(io::read_image(folder_ / "a.png").width, 64);
}

TEST_F(Generate, AnInterruptLeavesNothing) {
  const Arguments slow = arguments({"--steps", "1000", "--out", path("out")});
  const fs::path out = folder_ / "out";
  const ProgramResult result =
      run_program(slow, {.interrupt_when = [&] { return fs::exists(out); }});
  EXPECT_EQ(result.status, 130) << result.err;
  EXPECT_NE(result.err.find("ringlet: error: "), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(fs::is_empty(out));
}

TEST_F(Generate, AnInterruptKeepsFinishedPictures) {
  const Arguments slow = arguments({"--images", "10000", "--out", path("out")});
  const fs::path second = folder_ / "out/00002-6.png";
  const ProgramResult result =
      run_program(slow, {.interrupt_when = [&] { return fs::exists(second); }});
  EXPECT_EQ(result.status, 130) << result.err;
  EXPECT_EQ(io::read_image(second).width, 64);
  for (const std::string& name : names_in(folder_ / "out"))
    EXPECT_TRUE(name.ends_with(".png")) << name;
}

}  // namespace
}  // namespace ringlet::e2e
