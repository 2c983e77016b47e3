// Wrong options and wrong files beside the model: the exit status and a message that helps.
#include "tests/e2e/wrong_input.h"

#include <cmath>

#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"

namespace ringlet::e2e {
namespace {

void write_picture(const fs::path& path) {
  io::write_png(path, {64, 64, std::vector<std::uint8_t>(64 * 64 * 3, 128)});
}

/// What is refused before the model is looked at, which need not even be there.
Arguments early(const Arguments& more) { return picture_of("@/unopened", more); }

class WrongInputs : public WrongInputTest {};

TEST_P(WrongInputs, AreExplained) {
  const bool needs_no_cuda = std::string_view(GetParam().name) == "DeviceCudaWithoutOne";
  if (needs_no_cuda && nn::cuda_state().devices > 0) GTEST_SKIP() << "this machine has CUDA";
  expect_explained();
}

const std::vector<WrongInput> kCommandLine = {
    {"UnknownVerb", {"generat"}, 2, {"no such verb", "did you mean \"generate\""}},
    {"VerbFarFromAll",
     {"frobnicate"},
     2,
     {"no such verb",
      "use one of generate, train, tune, control, control-run, eval, merge, convert, extract, "
      "inspect"}},
    {"OptionBeforeTheVerb", {"--model", "x"}, 2, {"--model", "no such verb", "use one of"}},
    {"UnknownOption", early({"--promt", "x"}), 2, {"--promt", "did you mean --prompt?"}},
    {"UnknownOptionInsteadOfTheRequired",
     {"generate", "--modle", "x"},
     2,
     {"--modle", "did you mean --model?"}},
    {"UnknownOptionFarFromAll", early({"--qwertyuiop"}), 2, {"no such option", "--help"}},
    {"NoModel", {"generate", "--prompt", "x"}, 2, {"--model is required", "--help"}},
    {"ModelWithoutValue", {"generate", "--model"}, 2, {"--model", "missing", "--help"}},
    {"ModelTwice", early({"--model", "x"}), 2, {"--model", "1", "--help"}},
    {"WordsWithoutQuotes", early({"on", "a", "mat"}), 2, {"\"on\"", "in quotes"}},
    {"NoPrompt",
     {"generate", "--model", "@/unopened", "--out", "@/out"},
     2,
     {"--prompt", "needed"}},
    {"PromptNotUtf8", early({"--prompt", "caf\xe9"}), 2, {"--prompt", "UTF-8"}},
    {"NegativePromptNotUtf8", picture({"--negative-prompt", "\xff"}), 2, {"UTF-8"}},
    {"InspectNothing", {"inspect"}, 2, {"path is required", "--help"}},
    {"InspectMissingPath", {"inspect", "@/nope"}, 3, {"nope", "no such file or folder"}},
    {"InspectTwoPaths", {"inspect", "@/model", "@/model"}, 2, {"not expected here"}},
    {"DoctorWithAPath", {"doctor", "x"}, 2, {"\"x\"", "not expected here"}},
};

const std::vector<WrongInput> kNumbers = {
    {"StepsZero", early({"--steps", "0"}), 2, {"--steps", "between 1 and 1000"}},
    {"StepsNegative", early({"--steps", "-5"}), 2, {"--steps", "between 1 and 1000"}},
    {"StepsTooMany", early({"--steps", "100000"}), 2, {"--steps", "between 1 and 1000"}},
    {"StepsInWords", early({"--steps", "ten"}), 2, {"--steps = ten", "--help"}},
    {"StepsFraction", early({"--steps", "2.5"}), 2, {"--steps = 2.5", "--help"}},
    {"WidthNotAMultiple", picture({"--width", "501"}), 2, {"--width", "501", "try 50"}},
    {"WidthTiny", picture({"--width", "1"}), 2, {"--width", "multiple of", "try "}},
    {"WidthNegative", picture({"--width", "-64"}), 2, {"--width", "multiple of", "try "}},
    {"WidthHuge", picture({"--width", "100000"}), 2, {"--width", "largest side is 8192"}},
    {"HeightNotAMultiple", picture({"--height", "333"}), 2, {"--height", "333", "try 33"}},
    {"GuidanceNan", early({"--guidance", "nan"}), 2, {"--guidance", "between 0 and 1000"}},
    {"GuidanceNegative", early({"--guidance", "-1"}), 2, {"--guidance", "between 0"}},
    {"GuidanceRescale", early({"--guidance-rescale", "7"}), 2, {"--guidance-rescale", "0 and 1"}},
    {"Eta", early({"--eta", "2"}), 2, {"--eta", "between 0 and 1"}},
    {"SeedNegative", early({"--seed", "-1"}), 2, {"--seed", "must lie between 0", "--help"}},
    {"SeedInWords", early({"--seed", "lucky"}), 2, {"--seed", "must lie between 0", "--help"}},
    {"SeedTooLarge", early({"--seed", "18446744073709551616"}), 2, {"--seed", "2^64 - 1"}},
    {"ImagesZero", early({"--images", "0"}), 2, {"--images", "between 1"}},
    {"BatchSizeZero", early({"--batch-size", "0"}), 2, {"--batch-size", "between 1"}},
    {"Strength",
     early({"--init-image", "@/a.png", "--strength", "2"}),
     2,
     {"--strength", "between 0 and 1"}},
    {"StrengthWithoutImage", early({"--strength", "0.5"}), 2, {"--strength", "--init-image"}},
    {"ClipSkipZero", picture({"--clip-skip", "0"}), 2, {"--clip-skip", "at least 1"}},
    {"ClipSkipPastTheFirst", picture({"--clip-skip", "99"}), 2, {"--clip-skip", "layers"}},
    {"ThreadsNegative", early({"--threads", "-1"}), 2, {"--threads", "between 0 and 1024"}},
};

const std::vector<WrongInput> kNames = {
    {"SamplerMisspelt", early({"--sampler", "eulera"}), 2, {"--sampler", "did you mean \"euler"}},
    {"SamplerOfAnotherUi", early({"--sampler", "dpm-2m"}), 2, {"did you mean \"dpmpp-2m\"?"}},
    {"SamplerFarFromAll", early({"--sampler", "zzzzzzzz"}), 2, {"--sampler", "ddim, ddpm"}},
    {"OutputType", early({"--output-type", "bmp"}), 2, {"\"bmp\"", "use png or latent"}},
    {"Prediction", early({"--prediction", "x"}), 2, {"\"x\"", "use epsilon or v"}},
    {"DeviceUnknown", early({"--device", "tpu"}), 2, {"\"tpu\"", "use auto, cpu or cuda"}},
    {"DeviceCudaWithoutOne", early({"--device", "cuda"}), 5, {"CUDA", "use --device cpu"}},
    {"Precision", early({"--precision", "fp8"}), 2, {"\"fp8\"", "use auto, fp32, bf16 or fp16"}},
    {"OutIsEmpty",
     {"generate", "--model", "@/unopened", "--prompt", "x", "--out", ""},
     2,
     {"--out", "file or folder"}},
    {"OutIsAJpeg",
     {"generate", "--model", "@/unopened", "--prompt", "x", "--out", "@/out.jpg"},
     2,
     {"\".jpg\"", "name a .png file, or a folder"}},
    {"OutIsAPngForLatents",
     {"generate", "--model", "@/unopened", "--prompt", "x", "--output-type", "latent", "--out",
      "@/out.png"},
     2,
     {"\".png\"", "name a .safetensors file"}},
    {"OutIsBehindAFile",
     {"generate", "--model", "@/unopened", "--prompt", "x", "--out", "@/file/pictures"},
     7,
     {"file/pictures", "choose another --out"},
     [](const fs::path& folder) { write_text(folder / "file", "x"); }},
    {"OutIsAFileWithoutExtension",
     {"generate", "--model", "@/unopened", "--prompt", "x", "--out", "@/file"},
     7,
     {"/file", "choose another --out"},
     [](const fs::path& folder) { write_text(folder / "file", "x"); }},
};

const std::vector<WrongInput> kSideFiles = {
    {"PromptsMissing", picture({"--prompts", "@/nope.txt"}), 3, {"nope.txt", "cannot be read"}},
    {"PromptsEmpty",
     {"generate", "--model", "@/model", "--prompts", "@/p.txt", "--out", "@/out"},
     2,
     {"p.txt", "no line", "one entry per line"},
     [](const fs::path& folder) { write_text(folder / "p.txt", "\n\r\n"); }},
    {"PromptsInLatin1",
     picture({"--prompts", "@/p.txt"}),
     4,
     {"p.txt", "UTF-8", "Latin-1"},
     [](const fs::path& folder) { write_text(folder / "p.txt", "a caf\xe9\n"); }},
    {"InitImageMissing", picture({"--init-image", "@/nope.png"}), 3, {"nope.png", "not exist"}},
    {"InitImageIsText",
     picture({"--init-image", "@/a.png"}),
     5,
     {"a.png", "not a PNG, JPEG or WebP image", "convert it"},
     [](const fs::path& folder) { write_text(folder / "a.png", "this is no picture at all"); }},
    {"InitImageCut",
     picture({"--init-image", "@/a.png"}),
     4,
     {"a.png", "truncated", "copy or download the file again"},
     [](const fs::path& folder) {
       write_picture(folder / "a.png");
       fs::resize_file(folder / "a.png", fs::file_size(folder / "a.png") / 2);
     }},
    {"InitImageIsAFolder", picture({"--init-image", "@/model"}), 7, {"model", "read"}},
    {"MaskForAModelThatDoesNotInpaint",
     picture({"--init-image", "@/a.png", "--mask-image", "@/a.png"}),
     2,
     {"--mask-image", "not an inpainting model", "9 input channels"},
     [](const fs::path& folder) { write_picture(folder / "a.png"); }},
    {"LatentsMissing", picture({"--latents", "@/nope.safetensors"}), 3, {"nope.safetensors"}},
    {"LatentsOfAnotherShape",
     picture({"--latents", "@/l.safetensors"}),
     6,
     {"--latents", "[images, 4, height / "},
     [](const fs::path& folder) {
       io::save_tensors(folder / "l.safetensors", {{"latents", at::zeros({1, 3, 8, 8})}});
     }},
    {"LatentsOfAnotherSize",
     picture({"--latents", "@/l.safetensors", "--width", "64"}),
     6,
     {"--width", "64 does not fit the given latents"},
     [](const fs::path& folder) {
       io::save_tensors(folder / "l.safetensors", {{"latents", at::zeros({1, 4, 8, 8})}});
     }},
    {"LatentsForMoreImages",
     picture({"--latents", "@/l.safetensors", "--images", "3"}),
     6,
     {"holds 2 images, but 3 are asked for"},
     [](const fs::path& folder) {
       io::save_tensors(folder / "l.safetensors", {{"latents", at::zeros({2, 4, 8, 8})}});
     }},
    {"LatentsWithNan",
     picture({"--latents", "@/l.safetensors", "--steps", "1"}),
     10,
     {"NaN"},
     [](const fs::path& folder) {
       io::save_tensors(folder / "l.safetensors", {{"latents", at::full({1, 4, 8, 8}, NAN)}});
     }},
    {"LatentsOfAnotherName",
     picture({"--latents", "@/l.safetensors"}),
     4,
     {"l.safetensors", "no tensor \"latents\""},
     [](const fs::path& folder) {
       io::save_tensors(folder / "l.safetensors", {{"noise", at::zeros({1, 4, 8, 8})}});
     }},
    {"LatentsAreAPicture",
     picture({"--latents", "@/a.png"}),
     4,
     {"a.png"},
     [](const fs::path& folder) { write_picture(folder / "a.png"); }},
};

const std::vector<WrongInput> kConfigFiles = {
    {"ConfigMissing", early({"--config", "@/nope.toml"}), 3, {"--config", "nope.toml"}},
    {"ConfigWithUnknownKey",
     early({"--config", "@/c.toml"}),
     2,
     {"--config", "\"step\"", "did you mean \"steps\"?"},
     [](const fs::path& folder) { write_text(folder / "c.toml", "step = 2\n"); }},
    {"ConfigWithKeyFarFromAll",
     early({"--config", "@/c.toml"}),
     2,
     {"--config", "\"qwertyuiop\"", "--help"},
     [](const fs::path& folder) { write_text(folder / "c.toml", "qwertyuiop = 2\n"); }},
    {"ConfigWithSection",
     early({"--config", "@/c.toml"}),
     2,
     {"--config", "\"[train]\"", "--help"},
     [](const fs::path& folder) { write_text(folder / "c.toml", "[train]\nsteps = 2\n"); }},
    {"ConfigWithWrongType",
     early({"--config", "@/c.toml"}),
     2,
     {"--steps = ten", "--help"},
     [](const fs::path& folder) { write_text(folder / "c.toml", "steps = \"ten\"\n"); }},
    {"ConfigWithNegativeSeed",
     early({"--config", "@/c.toml"}),
     2,
     {"--seed", "must lie between 0"},
     [](const fs::path& folder) { write_text(folder / "c.toml", "seed = -1\n"); }},
    {"ConfigOutOfRange",
     early({"--config", "@/c.toml"}),
     2,
     {"--steps", "between 1 and 1000"},
     [](const fs::path& folder) { write_text(folder / "c.toml", "steps = 0\n"); }},
    {"ConfigIsAFolder", early({"--config", "@/model"}), 3, {"--config", "model"}},
};

INSTANTIATE_TEST_SUITE_P(CommandLine, WrongInputs, testing::ValuesIn(kCommandLine), name_of);
INSTANTIATE_TEST_SUITE_P(Numbers, WrongInputs, testing::ValuesIn(kNumbers), name_of);
INSTANTIATE_TEST_SUITE_P(Names, WrongInputs, testing::ValuesIn(kNames), name_of);
INSTANTIATE_TEST_SUITE_P(SideFiles, WrongInputs, testing::ValuesIn(kSideFiles), name_of);
INSTANTIATE_TEST_SUITE_P(ConfigFiles, WrongInputs, testing::ValuesIn(kConfigFiles), name_of);

class WrongInputsInJson : public WrongInputTest {};

TEST_P(WrongInputsInJson, AreOneObjectOnStdout) {
  const ProgramResult result = run({"--json"});
  EXPECT_EQ(result.status, GetParam().status) << result.out;
  EXPECT_EQ(result.err.find("error"), std::string::npos) << result.err;
  const Json error = parse_json(result.out, "stdout").at("error");
  std::string text;
  for (const char* key : {"code", "where", "message", "hint"})
    text += error.at(key).get<std::string>() + "\n";
  expect_message(text);
  expect_no_output();
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongInputsInJson,
    testing::Values(
        WrongInput{"Option", {"generate", "--modle"}, 2, {"invalid_argument", "--model"}},
        WrongInput{"Verb", {"generat"}, 2, {"invalid_argument", "generate"}},
        WrongInput{"Path", {"inspect", "@/nope"}, 3, {"not_found", "nope"}},
        WrongInput{"PromptNotUtf8", picture({"--prompt", "\xff"}), 2, {"invalid_argument"}},
        WrongInput{"Size", picture({"--width", "501"}), 2, {"invalid_argument", "try 50"}}),
    name_of);

TEST(Program, WithoutAVerbPrintsItsHelp) {
  for (const Arguments& arguments : {Arguments{}, Arguments{"--help"}, Arguments{"help"}}) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.err, "");
    for (const char* verb : {"generate", "inspect", "doctor"})
      EXPECT_NE(result.out.find(verb), std::string::npos) << result.out;
  }
}

TEST(Program, EveryVerbHasHelpWithAnExample) {
  for (const char* verb : {"generate", "inspect", "doctor"}) {
    const ProgramResult result = run_program({verb, "--help"});
    EXPECT_EQ(result.status, 0) << verb;
    EXPECT_EQ(result.err, "");
    EXPECT_NE(result.out.find("Example"), std::string::npos) << result.out;
    EXPECT_NE(result.out.find(std::string("ringlet ") + verb), std::string::npos) << result.out;
  }
}

}  // namespace
}  // namespace ringlet::e2e
