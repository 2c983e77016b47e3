// What `ringlet train` refuses of pictures, captions, masks and data sets, and how several data
// sets are given.
#include "ringlet/core/json.h"
#include "tests/e2e/wrong_input.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

void pictures(const fs::path& folder) { train::write_pictures(folder / "pictures", 3); }

/// `train` with the tiny model and these options.
Arguments training(const Arguments& more) {
  Arguments all = {"train",        "--model", "@/model", "--steps", "1",
                   "--resolution", "16",      "--out",   "@/out"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// The same on the folder of pictures.
Arguments on_pictures(const Arguments& more) {
  Arguments all = training({"--instance-images", "@/pictures", "--instance-prompt", "a dog"});
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

const Arguments kKohya = training({"--dataset-config", "@/sets.toml"});
const Arguments kTables = training({"--config", "@/sets.toml", "--instance-prompt", "a dog"});

class WrongData : public WrongInputTest {};

TEST_P(WrongData, IsExplained) { expect_explained(); }

const std::vector<WrongInput> kWrongData = {
    {"UnknownRule",
     on_pictures({"--aspect-buckets", "khoya"}),
     2,
     {"--aspect-buckets", "area, kohya or off"}},
    {"KohyasLimitsAreTooLarge",
     on_pictures({"--aspect-buckets", "kohya"}),
     2,
     {"--bucket-min", "256 is above the resolution of 16"},
     pictures},
    {"StepDoesNotFitTheModel",
     on_pictures({"--bucket-step", "3"}),
     2,
     {"--bucket-step", "3 is not a multiple of 2", "try 4"},
     pictures},
    {"PictureBelowTheStep",
     on_pictures({"--bucket-step", "16", "--bucket-no-upscale"}),
     5,
     {"tiny.png", "smaller than a bucket's step of 16", "--bucket-step"},
     [](const fs::path& folder) {
       fs::create_directories(folder / "pictures");
       io::write_png(folder / "pictures/tiny.png", train::waves(1, 15, 15));
     }},
    {"TokensToKeepWithoutShuffle",
     on_pictures({"--keep-tokens", "1"}),
     2,
     {"--keep-tokens", "it has no effect", "--shuffle-caption"},
     pictures},
    {"TagDropoutAboveOne",
     on_pictures({"--tag-dropout", "2"}),
     2,
     {"--tag-dropout", "between 0 and 1"}},
    {"NoMasks",
     on_pictures({"--masks", "files"}),
     3,
     {"none of the pictures has a mask", "a-masklabel.png", "--mask-images"},
     pictures},
    {"NoAlpha",
     on_pictures({"--masks", "alpha"}),
     3,
     {"none of the pictures has an alpha channel", "--masks files"},
     pictures},
    {"MaskWeightWithoutMasks",
     on_pictures({"--mask-outside", "0.1"}),
     2,
     {"--mask-outside", "there is no mask", "--masks files"},
     pictures},
    {"MaskOfAnotherShape",
     on_pictures({"--masks", "files"}),
     6,
     {"a_mask.png", "the mask is 48x32, its picture 32x32"},
     [](const fs::path& folder) {
       pictures(folder);
       io::write_png(folder / "pictures/a_mask.png", train::waves(1, 48, 32));
     }},
    {"KohyasTypo",
     kKohya,
     2,
     {"sets.toml:4", "num_repeat", "did you mean \"num_repeats\"?"},
     [](const fs::path& folder) {
       write_text(folder / "sets.toml",
                  "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\nnum_repeat = 2\n");
     }},
    {"KohyasColourAugmentation",
     kKohya,
     5,
     {"sets.toml:2", "\"color_aug\"", "pictures are encoded once"},
     [](const fs::path& folder) {
       write_text(folder / "sets.toml",
                  "[general]\ncolor_aug = true\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "
                  "'x'\n");
     }},
    {"KohyasMissingFolder",
     kKohya,
     3,
     {"/nowhere", "does not exist"},
     [](const fs::path& folder) {
       write_text(folder / "sets.toml",
                  "[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/nowhere'\n");
     }},
    {"NoToml",
     kKohya,
     4,
     {"sets.toml:1", "TOML"},
     [](const fs::path& folder) { write_text(folder / "sets.toml", "[[datasets\n"); }},
    {"TableTypo",
     kTables,
     2,
     {"sets.toml:2", "instance-image", "did you mean \"instance-images\"?"},
     [](const fs::path& folder) {
       write_text(folder / "sets.toml", "[[dataset]]\ninstance-image = \"x\"\n");
     }},
    {"FolderBesideDataSets",
     on_pictures({"--dataset-config", "@/sets.toml"}),
     2,
     {"--instance-images", "the data sets have their own folders"},
     [](const fs::path& folder) {
       pictures(folder);
       write_text(folder / "sets.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\n");
     }},
    {"OtherBatchSize",
     training({"--dataset-config", "@/sets.toml", "--batch-size", "2"}),
     2,
     {"--batch-size", "the file of --dataset-config says 4"},
     [](const fs::path& folder) {
       write_text(folder / "sets.toml",
                  "[[datasets]]\nbatch_size = 4\n[[datasets.subsets]]\nimage_dir = 'x'\n");
     }},
    {"MetadataOfAMissingPicture",
     on_pictures({"--metadata-file", "@/meta.jsonl"}),
     3,
     {"meta.jsonl:1", "\"z.png\" is not in"},
     [](const fs::path& folder) {
       pictures(folder);
       write_text(folder / "meta.jsonl", "{\"file_name\": \"z.png\", \"text\": \"a dog\"}\n");
     }},
    {"NothingIsLeft",
     on_pictures({"--on-bad-picture", "skip"}),
     4,
     {"left out", "a.png", "none of the pictures can be read"},
     [](const fs::path& folder) { write_text(folder / "pictures/a.png", "no picture"); }},
};

INSTANTIATE_TEST_SUITE_P(All, WrongData, testing::ValuesIn(kWrongData), name_of);

class DataSets : public testing::Test {
 protected:
  DataSets() {
    golden::write_folder(folder_ / "model", "sd1");
    train::write_pictures(folder_ / "a", 2);
    train::write_pictures(folder_ / "b", 3);
  }
  /// The plan of a run with data sets in this file.
  Json plan(const char* option, std::string text) const {
    for (std::size_t at; (at = text.find('@')) != std::string::npos;)
      text.replace(at, 1, folder_.path().string());
    write_text(folder_ / "sets.toml", text);
    const ProgramResult result = run_program(
        {"train", "--model", (folder_ / "model").string(), "--out", (folder_ / "out").string(),
         "--resolution", "16", "--dry-run", "--json", option, (folder_ / "sets.toml").string()});
    EXPECT_EQ(result.status, 0) << result.err;
    return parse_json(result.out, "plan").at("plan");
  }
  TemporaryFolder folder_;
};

TEST_F(DataSets, AreTablesOfTheConfigurationFileOrKohyas) {
  const Json own = plan("--config",
                        "steps = 2\nflip = true\n[[dataset]]\ninstance-images = \"@/a\"\n"
                        "instance-prompt = \"one\"\nrepeats = 2\n[[dataset]]\n"
                        "instance-images = \"@/b\"\ninstance-prompt = \"two\"\nresolution = 24\n"
                        "aspect-buckets = \"off\"\n");
  EXPECT_EQ(own.at("steps"), 2);
  EXPECT_EQ(own.at("pictures"), 5);
  EXPECT_EQ(own.at("data_sets").size(), 2u);
  EXPECT_EQ(own.at("buckets").back(), (Json{{"width", 24}, {"height", 24}, {"pictures", 3}}));
  const Json kohya = plan("--dataset-config",
                          "[[datasets]]\nbatch_size = 3\n[[datasets.subsets]]\nimage_dir = '@/a'\n"
                          "class_tokens = 'one'\nnum_repeats = 2\n[[datasets.subsets]]\n"
                          "image_dir = '@/b'\nclass_tokens = 'dog'\nis_reg = true\n");
  EXPECT_EQ(kohya.at("pictures"), 2);
  EXPECT_EQ(kohya.at("buckets"), Json::array({{{"width", 16}, {"height", 16}, {"pictures", 4}}}));
  EXPECT_EQ(kohya.at("captions").at(0).at("caption"), "one");
}

}  // namespace
}  // namespace ringlet::e2e
