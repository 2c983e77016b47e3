// `ringlet train` from the command line to the files, on the tiny models.
#include <fstream>
#include <sstream>

#include "ringlet/core/json.h"
#include "ringlet/train/metrics_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

class Train : public TinyProgram {
 protected:
  Train() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures");
  }

  /// A short run, and more; options that `more` gives are left to it.
  Arguments arguments(const Arguments& more = {}) const {
    const auto given = [&](const std::string& option) {
      return std::ranges::find(more, option) != more.end();
    };
    Arguments all = {"train"};
    for (const auto& [option, value] : std::vector<std::pair<std::string, std::string>>{
             {"--model", path("model")},
             {"--instance-images", path("pictures")},
             {"--instance-prompt", "a photo of sks dog"},
             {"--out", path("out")},
             {"--method", "lora(rank=2)"},
             {"--steps", "2"},
             {"--resolution", "16"},
             {"--seed", "5"},
             {"--sample-images", "2"},
             {"--sample-steps", "1"}})
      if (!given(option) && !(option == "--model" && given("--init")))
        all.insert(all.end(), {option, value});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  ProgramResult train(const Arguments& more = {}) const { return expect_success(arguments(more)); }

  static void expect_words(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(text.find(word), std::string::npos) << "lacks \"" << word << "\":\n" << text;
  }
};

TEST_F(Train, HelpShowsEveryOption) {
  const ProgramResult result = expect_success({"train", "--help"});
  expect_words(result.out,
               {"--model", "--init", "--method", "--targets", "--instance-images", "--class-prompt",
                "--steps", "--ema", "--min-snr-gamma", "--resume", "--checkpoint-every",
                "--sample-prompt", "--dry-run", "--json", "--config", "Example:"});
  EXPECT_EQ(result.err, "");
  expect_words(expect_success({"--help"}).out, {"train"});
}

/// "memory  about 437.2 MiB at the peak" or "peak memory 437.2 MiB", in MiB.
double mebibytes_after(const std::string& text, const std::string& words) {
  const std::size_t found = text.rfind(words);
  EXPECT_NE(found, std::string::npos) << text;
  if (found == std::string::npos) return 0.0;
  std::istringstream rest(text.substr(found + words.size()));
  double number = 0.0;
  std::string unit;
  rest >> number >> unit;
  EXPECT_EQ(unit.substr(0, 3), "MiB") << text;
  return number;
}

constexpr const char* kPlanned = "memory         about ";

// bench/memory.py measures larger models.
TEST_F(Train, TakesTheMemoryThatThePlanSays) {
  for (const Arguments& more : std::vector<Arguments>{{},
                                                      {"--method", "full"},
                                                      {"--gradient-checkpointing"},
                                                      {"--resolution", "64"},
                                                      {"--base-storage", "nf4"}}) {
    fs::remove_all(folder_ / "out");
    const std::string said = train(more).err;
    const double plan = mebibytes_after(said, kPlanned),
                 taken = mebibytes_after(said, "peak memory ");
    EXPECT_NEAR(plan / taken, 1.0, 0.15) << said;
  }
}

TEST_F(Train, StaysWithinALimitAndSaysHow) {
  const Arguments big = {"--resolution", "64", "--batch-size", "4", "--sample-images", "1"};
  const auto with = [&](const Arguments& more) {
    Arguments all = big;
    all.insert(all.end(), more.begin(), more.end());
    fs::remove_all(folder_ / "out");
    return train(all).err;
  };
  const double all = mebibytes_after(with({"--dry-run"}), kPlanned),
               least = mebibytes_after(with({"--dry-run", "--gradient-checkpointing"}), kPlanned);
  ASSERT_GT(all, least + 4.0);
  const double limit = (all + least) / 2.0;
  const std::string said = with({"--memory-limit", std::to_string(static_cast<int>(limit)) + "M"});
  expect_words(said, {"to save memory"});
  const double plan = mebibytes_after(said, kPlanned),
               taken = mebibytes_after(said, "peak memory ");
  EXPECT_LE(plan, limit + 1.0);
  EXPECT_NEAR(plan / taken, 1.0, 0.10) << said;
}

TEST_F(Train, MakesAnAdapterAndAReport) {
  const ProgramResult result = train();
  EXPECT_EQ(result.out, path("out/adapter.safetensors") + "\n" + path("out/report.html") + "\n");
  std::set<std::string> names = names_in(folder_ / "out");
  std::erase_if(names, [](const std::string& name) { return name.starts_with("events.out."); });
  EXPECT_EQ(names, (std::set<std::string>{"adapter.safetensors", "checkpoints", "metrics.csv",
                                          "report.html", "samples"}));
  EXPECT_EQ(names_in(folder_ / "out").size(), 6u);  // one file of events
  EXPECT_EQ(names_in(folder_ / "out/samples"),
            (std::set<std::string>{"step-00000000.png", "step-00000002.png"}));
  const io::Image grid = io::read_image(folder_ / "out/samples/step-00000002.png");
  EXPECT_EQ(grid.width, 2 * 16);
  EXPECT_EQ(grid.height, 16);
  EXPECT_EQ(train::read_metrics(folder_ / "out/metrics.csv").size(), 2u);
  expect_words(read_bytes(folder_ / "out/report.html"),
               {"<svg", "data:image/png", "lora(", "a photo of sks dog"});
  expect_words(result.err, {"The plan:", "3 of ", "16 pixels", "seed"});
  // Other verbs open it.
  expect_words(expect_success({"inspect", path("out/adapter.safetensors")}).out, {"lora"});
}

TEST_F(Train, TheBaseCanBeKeptNarrow) {
  const ProgramResult result = train({"--base-storage", "nf4", "--method", "trm(rank=2)+lora"});
  expect_words(result.err, {"base in nf4"});
  expect_words(read_bytes(folder_ / "out/report.html"), {"base storage", "nf4"});
  const Arguments again = arguments({"--resume", "--steps", "3", "--method", "trm(rank=2)+lora"});
  const ProgramResult other = run_program(again);
  EXPECT_NE(other.status, 0);
  expect_words(other.err, {"base storage was \"nf4\", now \"as-stored\""});
  const ProgramResult unknown = run_program(arguments({"--base-storage", "nf5"}));
  EXPECT_NE(unknown.status, 0);
  expect_words(unknown.err, {"--base-storage", "nf4"});
  for (const char* storage : {"nf4", "int8"})
    expect_success({"generate", "--model", path("model"), "--adapter",
                    path("out/adapter.safetensors"), "--prompt", "a dog", "--steps", "1", "--width",
                    "16", "--height", "16", "--seed", "1", "--base-storage", storage, "--out",
                    path(std::string(storage) + ".png")});
  EXPECT_NE(read_bytes(folder_ / "nf4.png"), read_bytes(folder_ / "int8.png"));
}

TEST_F(Train, TheSameSeedGivesTheSameBytes) {
  train({"--out", path("a/out")});
  train({"--out", path("b/out"), "--threads", "1"});
  train({"--out", path("c/out"), "--seed", "6"});
  EXPECT_EQ(read_bytes(folder_ / "a/out/adapter.safetensors"),
            read_bytes(folder_ / "b/out/adapter.safetensors"));
  EXPECT_NE(read_bytes(folder_ / "a/out/adapter.safetensors"),
            read_bytes(folder_ / "c/out/adapter.safetensors"));
}

TEST_F(Train, ADryRunShowsThePlanAndWritesNothing) {
  const ProgramResult result =
      train({"--dry-run", "--batch-size", "3", "--class-prompt", "a dog", "--class-count", "7",
             "--learning-rate-schedule", "cosine", "--warmup-steps", "1"});
  EXPECT_EQ(result.out, "");
  expect_words(result.err, {"The plan:", "Stable Diffusion 1", "pictures of the folder",
                            "\"a photo of sks dog\"", "0 found, 7 to make", "lora(", "layers",
                            "2 of batch 3 x 1 at 16 pixels, in 3 aspect buckets, 0.7 epochs",
                            "1 of 16, 1 of 20x12, 1 of 14x18", "cosine: 0 at the start", "memory",
                            "seed", "5"});
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_EQ(names_in(folder_.path()), (std::set<std::string>{"model", "pictures"}));
}

// A run of Lion, in all that a run says and leaves.
TEST_F(Train, AnotherOptimiserIsInThePlanTheCheckpointAndTheReport) {
  const ProgramResult stopped = train({"--optimizer", "lion", "--weight-decay", "0.1"});
  expect_words(stopped.err, {"lion, betas [0.9,0.99], weight decay 0.1"});
  const std::string report = read_bytes(folder_ / "out/report.html");
  expect_words(report, {"<td>lion</td>"});
  Arguments more = arguments({"--resume", "--steps", "3"});
  EXPECT_EQ(run_program(more).status, 6);  // another optimiser
  more.insert(more.end(), {"--optimizer", "lion", "--weight-decay", "0.1", "--json"});
  const Json json = parse_json(expect_success(more).out, "stdout");
  EXPECT_EQ(json.at("plan").at("optimizer"), "lion");
  EXPECT_EQ(json.at("plan").at("first_step"), 2);
}

TEST_F(Train, ADryRunShowsHowABudgetIsSpent) {
  const ProgramResult result = train({"--dry-run", "--method", "dora(rank=999)", "--budget", "1G"});
  expect_words(result.err, {"budget", "layers", " x ", "parameters each", "lora(", "+magnitude"});
  EXPECT_EQ(result.err.find("rank=999"), std::string::npos) << result.err;
}

TEST_F(Train, ADryRunAsJson) {
  const ProgramResult result = train({"--dry-run", "--json"});
  EXPECT_EQ(result.err, "");
  const Json plan = parse_json(result.out, "stdout").at("plan");
  EXPECT_EQ(plan.at("pictures"), 3);
  EXPECT_EQ(plan.at("resolution"), 16);
  EXPECT_EQ(plan.at("steps"), 2);
  EXPECT_EQ(plan.at("first_step"), 0);
  EXPECT_EQ(plan.at("captions").at(0).at("caption"), "a photo of sks dog");
  EXPECT_GT(plan.at("parameters"), 0);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(Train, ADryRunSaysWhatIsNotUsed) {
  const auto write = [&](const std::string& name, const std::string& content) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << content;
  };
  for (const char* name : {"x.avif", "y.heic", "Thumbs.db", "@eaDir/a.png/SYNO.jpg"})
    write(std::string("pictures/") + name, "x");
  fs::copy(folder_ / "pictures/a.png", folder_ / "pictures/a-masklabel.png");
  std::string many;
  for (int i = 0; i < 100; ++i) many += "dog ";
  write("pictures/b.TXT", "\xEF\xBB\xBF" + many + "\nmore\n");
  train::write_pictures(folder_ / "class", 3);
  write("class/a.txt", "a pet");
  const Arguments more = {"--dry-run",   "--class-prompt", "a dog", "--class-images",
                          path("class"), "--class-count",  "2"};
  const std::string text = train(more).err;
  expect_words(text, {"2 files of unsupported types: .avif .heic",
                      "2 files and folders of other programs are skipped: @eaDir, Thumbs.db",
                      "is skipped: a-masklabel.png", "only the first is used: b.TXT",
                      " tokens, the model reads ", "2 of 3 used, 0 to make",
                      "class pictures: 1 caption file is not used: a.txt", "3 of "});
  for (const char* words : {"too long", "unsupported types", "b.TXT: "})
    EXPECT_EQ(text.find(words), text.rfind(words)) << text;
  Arguments json = more;
  json.emplace_back("--json");
  const ProgramResult result = train(json);
  EXPECT_EQ(result.err, "");
  const Json plan = parse_json(result.out, "stdout").at("plan");
  EXPECT_EQ(plan.at("notes").at(0).at("kind"), "unread_picture");
  EXPECT_EQ(plan.at("notes").at(0).at("files"), (Json{"x.avif", "y.heic"}));
  EXPECT_GT(plan.at("captions_too_long").at(0).at("tokens"), 77);
  EXPECT_EQ(plan.at("class_pictures_found"), 3);
  EXPECT_EQ(plan.at("class_notes").at(0).at("kind"), "unused_caption");
  // Once in the whole run.
  const std::string run = train({"--train-text-encoder"}).err;
  EXPECT_EQ(run.find("too long"), run.rfind("too long")) << run;
  for (const char* name : {"b", "c"})
    fs::resize_file(path(std::string("pictures/") + name + ".png"), 60);
  const ProgramResult damaged = run_program(arguments({"--dry-run", "--out", path("other")}));
  EXPECT_EQ(damaged.status, 4);
  expect_words(damaged.err, {"2 of 3 pictures cannot be used", "b.png: ", "c.png: "});
}

TEST_F(Train, JsonSaysWhereThingsAre) {
  const ProgramResult result = train({"--json"});
  EXPECT_EQ(result.err, "");
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json.at("result"), path("out/adapter.safetensors"));
  EXPECT_EQ(json.at("report"), path("out/report.html"));
  EXPECT_EQ(json.at("plan").at("steps"), 2);
}

TEST_F(Train, ErrorsAsJson) {
  const ProgramResult result = run_program(arguments({"--json", "--method", "lorra(rank=2)"}));
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(parse_json(result.out, "stdout").at("error").at("code"), "invalid_argument");
}

TEST_F(Train, QuietSaysNothing) { EXPECT_EQ(train({"--quiet"}).err, ""); }

TEST_F(Train, AConfigFileEqualsTheOptions) {
  std::ofstream(folder_ / "c.toml")
      << "model = \"" << path("model") << "\"\ninstance-images = \"" << path("pictures")
      << "\"\ninstance-prompt = \"a photo of sks dog\"\nmethod = \"lora(rank=2)\"\nsteps = 2\n"
         "resolution = 16\nseed = 5\nsample-images = 2\nsample-steps = 1\n";
  train({"--out", path("a/out")});
  expect_success({"train", "--config", path("c.toml"), "--out", path("b/out")});
  EXPECT_EQ(read_bytes(folder_ / "a/out/adapter.safetensors"),
            read_bytes(folder_ / "b/out/adapter.safetensors"));
}

TEST_F(Train, ClassPicturesAreMadeAndKept) {
  const ProgramResult first = train({"--class-prompt", "a photo of a dog", "--class-count", "2"});
  const fs::path folder = folder_ / "out/class_images";
  EXPECT_EQ(names_in(folder), (std::set<std::string>{"class-00001.png", "class-00002.png"}));
  const std::string picture = read_bytes(folder / "class-00001.png");
  const auto written = fs::last_write_time(folder / "class-00001.png");
  train({"--out", path("second"), "--class-prompt", "a photo of a dog", "--class-count", "3",
         "--class-images", folder.string()});
  EXPECT_EQ(names_in(folder).size(), 3u);
  EXPECT_EQ(read_bytes(folder / "class-00001.png"), picture);
  EXPECT_EQ(fs::last_write_time(folder / "class-00001.png"), written);
}

TEST_F(Train, SamplesOnTheWay) {
  train({"--steps", "5", "--sample-every", "2", "--sample-prompt", "a cat", "--sample-prompt",
         "a dog", "--sample-images", "3"});
  EXPECT_EQ(names_in(folder_ / "out/samples"),
            (std::set<std::string>{"step-00000000.png", "step-00000002.png", "step-00000004.png",
                                   "step-00000005.png"}));
  const io::Image grid = io::read_image(folder_ / "out/samples/step-00000004.png");
  EXPECT_EQ(grid.width, 3 * 16);
  EXPECT_EQ(grid.height, 2 * 16);
}

TEST_F(Train, OnlyTheLastCheckpointsStay) {
  train({"--steps", "5", "--checkpoint-every", "1", "--keep-checkpoints", "3"});
  EXPECT_EQ(names_in(folder_ / "out/checkpoints"),
            (std::set<std::string>{"step-00000003.safetensors", "step-00000003.sha256",
                                   "step-00000004.safetensors", "step-00000004.sha256",
                                   "step-00000005.safetensors", "step-00000005.sha256"}));
}

TEST_F(Train, LatentsAreCached) {
  const Arguments cache = {"--cache", path("cache"), "--flip"};
  Arguments first = cache, second = cache;
  first.insert(first.end(), {"--out", path("a/out")});
  second.insert(second.end(), {"--out", path("b/out")});
  train(first);
  EXPECT_EQ(names_in(folder_ / "cache").size(), 6u);
  train(second);
  EXPECT_EQ(read_bytes(folder_ / "a/out/adapter.safetensors"),
            read_bytes(folder_ / "b/out/adapter.safetensors"));
}

TEST_F(Train, SettingsOfEveryKindWork) {
  train({"--method",
         "trm(rank=2)+tr(rank=2)",
         "--targets",
         "attention+ff",
         "--exclude",
         "*.to_k",
         "--train-text-encoder",
         "--penalty",
         "identity:1e-3",
         "--penalty",
         "orthogonal:1e-3",
         "--learning-rate-factor",
         "*.transform.*=0.5",
         "--learning-rate-factor",
         "text_encoder*=0.1",
         "--crop",
         "random",
         "--flip",
         "--batch-size",
         "2",
         "--gradient-accumulation",
         "2",
         "--learning-rate",
         "1e-3",
         "--betas",
         "0.9,0.99",
         "--weight-decay",
         "0.1",
         "--clip-norm",
         "0.5",
         "--ema",
         "0.9",
         "--gradient-checkpointing",
         "--min-snr-gamma",
         "5",
         "--noise-offset",
         "0.1",
         "--caption-dropout",
         "0.1",
         "--clip-skip",
         "2",
         "--precision",
         "bf16"});
  EXPECT_TRUE(fs::exists(folder_ / "out/adapter.safetensors"));
}

class TrainModels : public Train, public testing::WithParamInterface<const char*> {};

TEST_P(TrainModels, EveryKindOfModelLearns) {
  fs::remove_all(folder_ / "model");
  const std::string model = write_model(GetParam()).string();
  train({"--model", model, "--batch-size", "2", "--train-text-encoder"});
  EXPECT_TRUE(fs::exists(folder_ / "out/adapter.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, TrainModels, testing::Values("sd2", "sdxl", "sd1-file"),
                         [](const auto& each) {
                           std::string name = each.param;
                           std::erase(name, '-');
                           return name;
                         });

// --- all weights ---

TEST_F(Train, AllWeightsFromRandomPartsMakeAModelThatGenerateOpens) {
  fs::remove(folder_ / "model/unet/diffusion_pytorch_model.safetensors");
  const Arguments full = {"--init", path("model"), "--method", "full"};
  Arguments first = full, second = full;
  first.insert(first.end(), {"--out", path("a/out")});
  second.insert(second.end(), {"--out", path("b/out")});
  EXPECT_EQ(train(first).out, path("a/out/model") + "\n" + path("a/out/report.html") + "\n");
  const std::string weights = "out/model/unet/diffusion_pytorch_model.safetensors";
  train(second);  // random, but by the seed
  EXPECT_EQ(read_bytes(folder_ / "a" / weights), read_bytes(folder_ / "b" / weights));
  expect_success({"generate", "--model", path("a/out/model"), "--prompt", "a cat", "--steps", "1",
                  "--width", "16", "--height", "16", "--out", path("cat.png")});
  EXPECT_EQ(io::read_image(folder_ / "cat.png").width, 16);
}

// --- going on ---

TEST_F(Train, ResumeGoesOnWhereMoreStepsAreAskedFor) {
  train({"--out", path("whole/out"), "--steps", "4"});
  train({"--out", path("parts/out"), "--steps", "2"});
  const ProgramResult result = train({"--out", path("parts/out"), "--steps", "4", "--resume"});
  expect_words(result.err, {"resuming after step 2"});
  EXPECT_EQ(read_bytes(folder_ / "parts/out/adapter.safetensors"),
            read_bytes(folder_ / "whole/out/adapter.safetensors"));
  EXPECT_EQ(train::read_metrics(folder_ / "parts/out/metrics.csv").size(), 4u);
}

TEST_F(Train, ResumeWithoutACheckpointStarts) {
  train({"--resume"});
  EXPECT_TRUE(fs::exists(folder_ / "out/adapter.safetensors"));
}

TEST_F(Train, ResumeWithOtherSettingsIsRefusedAndChangesNothing) {
  train();
  const std::string rows = read_bytes(folder_ / "out/metrics.csv");
  const std::set<std::string> names = names_in(folder_ / "out");
  const ProgramResult result =
      run_program(arguments({"--resume", "--steps", "4", "--seed", "6", "--batch-size", "2"}));
  EXPECT_EQ(result.status, 6);
  expect_words(result.err, {"seed was 5, now 6", "batch size was 1, now 2", "another folder"});
  // A dry run says so, too.
  EXPECT_EQ(run_program(arguments({"--resume", "--seed", "6", "--dry-run"})).status, 6);
  const ProgramResult fewer = run_program(arguments({"--resume", "--steps", "1"}));
  EXPECT_EQ(fewer.status, 2);
  expect_words(fewer.err, {"--steps", "done 2 steps already"});
  EXPECT_EQ(read_bytes(folder_ / "out/metrics.csv"), rows);
  EXPECT_EQ(names_in(folder_ / "out"), names);
}

}  // namespace
}  // namespace ringlet::e2e
