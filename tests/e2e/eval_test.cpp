// `ringlet eval` on the tiny model.
#include <future>

#include "ringlet/core/child_process.h"
#include "ringlet/core/json.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"
#include "tests/tiny_vision.h"

namespace ringlet::e2e {
namespace {

class Eval : public TinyProgram {
 protected:
  Eval() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures", 4);
    for (const char* name : {"a", "b", "c", "d"})
      std::ofstream(folder_ / "pictures" / (std::string(name) + ".txt")) << "waves " << name;
  }
  /// A control encoder of one step.
  void train_control(const std::string& out, const std::string& seed) const {
    expect_success({"train", "--model", path("model"), "--instance-images", path("pictures"),
                    "--control", "canny", "--method", "lora(rank=1)", "--steps", "1",
                    "--resolution", "16", "--sample-steps", "1", "--seed", seed, "--out",
                    path(out)});
  }
  static void expect_failure(const Arguments& arguments, const std::string& words) {
    const ProgramResult result = run_program(arguments);
    EXPECT_NE(result.status, 0);
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  }

  /// A detector that sees two points at the corner of every picture.
  std::string finder() const {
    std::ofstream(folder_ / "find.sh")
        << "for picture in \"$1\"/*.png; do\n"
           "  echo '[[0, 0], [0, 0]]' > \"$2/$(basename \"$picture\" .png).json\"\ndone\n"
           "echo looked\n";
    return "sh " + path("find.sh");
  }

  /// A comparison of two seeds on the tiny model.
  void write_recipe(const std::string& rates, int steps, const std::string& methods) const {
    std::ofstream(folder_ / "recipe.toml")
        << "kind = 'control'\nmodel = '" << path("model") << "'\nseeds = [1, 2]\n"
        << "learning-rates = " << rates << "\n[train]\ninstance-images = '" << path("pictures")
        << "'\ncontrol = 'canny'\nvalidation-pictures = 2\nsteps = " << steps
        << "\nresolution = 16\nsample-steps = 1\n[eval]\nkind = 'canny'\nreference = '"
        << path("pictures") << "'\nsamples = 1\nsteps = 1\nsize = 16\n"
        << methods;
  }
};

TEST_F(Eval, MeasuresFoldersAndTheirDifference) {
  const ProgramResult same =
      expect_success({"eval", "control", "--kind", "canny", "--reference", path("pictures"),
                      "--generated", path("pictures"), "--canny-low", "20", "--canny-high", "40",
                      "--result", path("same.json"), "--html", path("same.html")});
  EXPECT_NE(same.out.find("F1   1 [1, 1]  (4 samples of 4 units)"), std::string::npos) << same.out;
  EXPECT_NE(read_bytes(folder_ / "same.html").find("data:image/png"), std::string::npos);
  expect_success({"eval", "control", "--kind", "segmentation", "--reference", path("pictures"),
                  "--generated", path("pictures"), "--json"});

  fs::create_directories(folder_ / "made");
  int number = 5;
  for (const char* name : {"a", "b", "c", "d"})
    io::write_png(folder_ / "made" / (std::string(name) + "-s1.png"), train::waves(number++));
  expect_failure({"eval", "control", "--kind", "canny", "--reference", path("pictures"),
                  "--generated", path("made")},
                 "give --size N");
  for (const char* folder : {"made", "pictures"})
    expect_success({"eval", "control", "--kind", "canny", "--reference", path("made"),
                    "--generated", path("made"), "--result", path(std::string(folder) + ".json")});
  const ProgramResult difference =
      expect_success({"eval", "difference", path("made.json"), path("pictures.json"), "--html",
                      path("difference.html")});
  EXPECT_NE(difference.out.find("0 [0, 0]"), std::string::npos) << difference.out;
  const std::string page = read_bytes(folder_ / "difference.html");
  for (const char* words : {"F1", "0 [0, 0]", "above 0 in 0.0 % of resamples", "made.json"})
    EXPECT_NE(page.find(words), std::string::npos) << words;
  expect_failure({"eval", "difference", path("made.json"), path("same.json")},
                 "reference pictures: the first run was measured with");
}

TEST_F(Eval, RefusesWhatCannotBeMeasured) {
  expect_failure({"eval", "speed"},
                 "use one of control, subject, set, similarity, compare, difference");
  expect_failure({"eval", "control", "--kind", "depth", "--generated", "x"}, "use canny");
  const auto ignored = [&](const std::string& kind, const Arguments& more, const char* message) {
    Arguments words = {"eval",        "control",        "--kind",      kind,
                       "--generated", path("pictures"), "--reference", path("pictures")};
    words.insert(words.end(), more.begin(), more.end());
    expect_failure(words, message);
  };
  ignored("canny", {"--samples", "3"}, "--samples: it sets how pictures are generated");
  ignored("canny", {"--variant", "fp16"}, "--variant: it sets how pictures are generated");
  ignored("canny", {"--labels", path("pictures")}, "--labels: it applies to another");
  ignored("segmentation", {"--canny-low", "50"}, "--canny-low: it sets how canny finds edges");
  ignored("segmentation", {"--classes", "3"}, "--classes: there are no --labels");
  ignored("segmentation", {"--segmenter", "x", "--labels", "x", "--classes", "3"},
          "--classes: with --segmenter");
  expect_failure({"eval", "control", "--kind", "canny", "--generated", path("pictures")},
                 "--reference");
  expect_failure({"eval", "control", "--kind", "landmark", "--generated", path("pictures")},
                 "--landmarks");
  expect_failure({"eval", "control", "--kind", "canny", "--reference", path("pictures"),
                  "--generated", path("nothing")},
                 "does not exist");
}

TEST_F(Eval, LandmarksAndLabelMaps) {
  for (const char* folder : {"true", "found", "faces"}) fs::create_directories(folder_ / folder);
  for (const char* name : {"faces/a.png", "faces/b.png"})
    io::write_png(folder_ / name, train::waves(0));
  for (const char* name : {"true/a.json", "true/b.json", "found/a.json"})
    std::ofstream(folder_ / name) << "[[0, 0], [4, 3]]";
  std::ofstream(folder_ / "found/a.json") << "[[0, 0], [0, 0]]";
  const Arguments landmarks = {
      "eval",        "control",     "--kind",     "landmark",          "--generated",
      path("faces"), "--landmarks", path("true"), "--found-landmarks", path("found")};
  const ProgramResult result = expect_success(landmarks);
  EXPECT_NE(result.out.find("2.5  (1 samples of 1 units)"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("nothing was detected in 1 of 2"), std::string::npos) << result.out;
  Arguments squares = landmarks;
  squares.insert(squares.end(), {"--size", "16"});
  expect_failure(squares, "--reference");
  squares.insert(squares.end(), {"--reference", path("faces")});
  EXPECT_NE(expect_success(squares).out.find("1.25  ("), std::string::npos);

  Arguments find = {"eval",        "control",     "--kind",      "landmark",
                    "--generated", path("faces"), "--landmarks", path("true"),
                    "--find-with", finder(),      "--result",    path("found.json")};
  const ProgramResult looked = expect_success(find);
  EXPECT_NE(looked.err.find("looked"), std::string::npos) << looked.err;
  EXPECT_EQ(names_in(folder_ / "faces/found"), (std::set<std::string>{"a.json", "b.json"}));
  EXPECT_EQ(read_json_file(folder_ / "found.json").at("settings").at("found with"), finder());
  find[9] = "exit 3; :";
  expect_failure(find, "--find-with: \"exit 3; :\" ended with status 3");
  find[5] = path("nothing");
  expect_failure(find, "does not exist");
  expect_failure({"eval", "control", "--kind", "canny", "--generated", path("faces"), "--reference",
                  path("faces"), "--find-with", "true"},
                 "--find-with: nothing has to be found");

  for (const char* folder : {"labels", "said"}) {
    fs::create_directories(folder_ / folder);
    io::write_png(folder_ / folder / "a.png", {2, 1, {0, 0, 0, 1, 1, 1}});
  }
  Arguments maps = {"eval",           "control",    "--kind",    "segmentation",
                    "--generated",    path("said"), "--labels",  path("labels"),
                    "--found-labels", path("said"), "--classes", "2"};
  EXPECT_NE(expect_success(maps).out.find("mIoU"), std::string::npos);
  maps.back() = "1";
  expect_failure(maps, "label 1");
}

TEST_F(Eval, SubjectsAndSets) {
  golden::write_tiny_vit(folder_ / "dino");
  golden::write_tiny_clip(folder_ / "clip");
  std::ofstream(folder_ / "prompts.txt") << "a {} in snow\na {} on the moon\n";
  const ProgramResult result = expect_success({"eval",        "subject",
                                               "--model",     path("model"),
                                               "--prompts",   path("prompts.txt"),
                                               "--subject",   "sks dog",
                                               "--token",     "sks",
                                               "--samples",   "2",
                                               "--steps",     "1",
                                               "--generated", path("made"),
                                               "--reference", path("pictures"),
                                               "--dino",      path("dino"),
                                               "--clip",      path("clip"),
                                               "--result",    path("subject.json"),
                                               "--html",      path("subject.html")});
  EXPECT_EQ(names_in(folder_ / "made"),
            (std::set<std::string>{"generation.json", "p00-s1.png", "p00-s2.png", "p01-s1.png",
                                   "p01-s2.png"}));
  for (const char* word : {"DINO", "CLIP-I", "CLIP-T", "DIV by DINO", "4 samples of 2 units"})
    EXPECT_NE(result.out.find(word), std::string::npos) << result.out;
  EXPECT_EQ(read_json_file(folder_ / "subject.json").at("metrics").size(), 4u);
  const ProgramResult sets =
      expect_success({"eval", "set", "--generated", path("made"), "--reference", path("pictures"),
                      "--features", path("dino")});
  EXPECT_NE(sets.out.find("Frechet distance (dino)"), std::string::npos) << sets.out;
  expect_failure({"eval", "subject", "--generated", path("made"), "--reference", path("pictures")},
                 "at least one feature network");
  expect_failure({"eval", "subject", "--generated", path("made"), "--reference", path("pictures"),
                  "--dino", path("dino"), "--prompts", path("prompts.txt")},
                 "--prompts: it sets how pictures are generated");
  expect_failure({"eval", "set", "--generated", path("made"), "--reference", path("pictures"),
                  "--features", path("pictures")},
                 "published as facebook/dino-vits16");
}

// What is there is of the settings that are asked for, or it is not measured.
TEST_F(Eval, SubjectPicturesOfOtherSettingsAreRefused) {
  golden::write_tiny_vit(folder_ / "dino");
  std::ofstream(folder_ / "prompts.txt") << "a dog in snow\na dog on the moon\n";
  const auto command = [&](const Arguments& more) {
    Arguments words = {"eval",        "subject",           "--model",     path("model"),
                       "--prompts",   path("prompts.txt"), "--steps",     "1",
                       "--generated", path("made"),        "--reference", path("pictures"),
                       "--dino",      path("dino"),        "--result",    path("result.json")};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  expect_success(command({"--samples", "2"}));
  const std::string picture = read_bytes(folder_ / "made/p01-s2.png");
  EXPECT_EQ(read_json_file(folder_ / "result.json").at("settings").at("steps"), "1");

  fs::remove(folder_ / "made/p01-s2.png");  // as an interrupted generation leaves it
  const ProgramResult both = expect_success(command({"--samples", "2"}));
  EXPECT_NE(both.out.find("4 samples of 2 units"), std::string::npos) << both.out;
  EXPECT_EQ(read_bytes(folder_ / "made/p01-s2.png"), picture);
  const ProgramResult one = expect_success(command({"--samples", "1", "--seed", "2"}));
  EXPECT_NE(one.out.find("2 samples of 2 units"), std::string::npos) << one.out;

  expect_failure(command({"--guidance", "3"}), "guidance was \"7.5\" and is now \"3\"");
  expect_failure(command({"--clip-skip", "2"}), "clip skip was \"1\" and is now \"2\"");
  expect_failure(command({"--prediction", "v"}), "prediction was nothing and is now \"v\"");
  expect_failure(command({"--prediction", "flow"}), "use epsilon or v");
  fs::copy(folder_ / "model", folder_ / "other", fs::copy_options::recursive);
  Arguments other = command({});
  other[3] = path("other");
  expect_failure(other, "model was");
  std::ofstream(folder_ / "prompts.txt") << "a dog in snow\na cat\n";
  expect_failure(command({}), "the prompt of p01 was");
  fs::remove(folder_ / "made/generation.json");
  expect_failure(command({}), "without a generation.json");
}

TEST_F(Eval, ModelsOfOneFileTakeATokenizer) {
  golden::write_tiny_vit(folder_ / "dino");
  std::ofstream(folder_ / "prompts.txt") << "a dog in snow\n";
  const std::string file = write_model("sd1-file").string();
  fs::rename(folder_ / "tokenizer", folder_ / "words");
  Arguments command = {"eval",        "subject",           "--model",     file,
                       "--prompts",   path("prompts.txt"), "--steps",     "1",
                       "--generated", path("made"),        "--reference", path("pictures"),
                       "--dino",      path("dino"),        "--samples",   "1"};
  expect_failure(command, "--tokenizer FOLDER");
  command.insert(command.end(), {"--tokenizer", path("words"), "--clip-skip", "2"});
  expect_success(command);
}

TEST_F(Eval, ControlPicturesOfOtherSettingsAreRefused) {
  const auto train = [&](const std::string& out) { train_control(out, out == "one" ? "1" : "2"); };
  train("one");
  const auto command = [&](const std::string& run, const Arguments& more = {}) {
    Arguments words = {"eval",        "control",
                       "--kind",      "canny",
                       "--model",     path("model"),
                       "--adapter",   path(run + "/adapter.safetensors"),
                       "--reference", path("pictures"),
                       "--generated", path("made"),
                       "--steps",     "1",
                       "--size",      "16",
                       "--result",    path("result.json")};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  expect_success(command("one", {"--samples", "2"}));
  const Json settings = read_json_file(folder_ / "result.json").at("settings");
  for (const char* name : {"model", "adapters", "sampler", "control strength", "references"})
    EXPECT_TRUE(settings.contains(name)) << name;
  fs::remove(folder_ / "made/b-s1.png");
  const ProgramResult result = expect_success(command("one", {"--samples", "1"}));
  EXPECT_NE(result.out.find("4 samples of 4 units"), std::string::npos) << result.out;
  expect_failure(command("one", {"--control-strength", "0.5"}), "control strength was \"1\"");
  train("two");
  expect_failure(command("two"), "adapters was \"adapter.safetensors (");
  // The same adapter elsewhere is the same adapter.
  fs::rename(folder_ / "one", folder_ / "moved");
  expect_success(command("moved", {"--samples", "1"}));
  // Given by hand they are measured as they are.
  expect_success({"eval", "control", "--kind", "canny", "--reference", path("pictures"),
                  "--generated", path("made"), "--size", "16"});
}

// References of other sizes, in the folders that training reads.
TEST_F(Eval, ControlPicturesAreMeasuredAtTheModelsSize) {
  train_control("run", "1");
  for (const char* name : {"2_waves/a", "1_hills/b"}) {
    fs::create_directories((folder_ / "photos" / name).parent_path());
    io::write_png(folder_ / "photos" / (std::string(name) + ".png"), train::waves(1, 48, 40));
  }
  const auto command = [&](const Arguments& more) {
    Arguments words = {"eval",        "control",
                       "--model",     path("model"),
                       "--adapter",   path("run/adapter.safetensors"),
                       "--reference", path("photos"),
                       "--generated", path("made"),
                       "--steps",     "1",
                       "--samples",   "1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  // Names are looked at before anything is made.
  fs::create_directories(folder_ / "labels");
  io::write_png(folder_ / "labels/a.png", {1, 1, {0, 0, 0}});
  expect_failure(command({"--kind", "segmentation", "--classes", "2", "--labels", path("labels")}),
                 "(1: b)");
  expect_failure(command({"--kind", "canny", "--size", "15"}), "not a multiple of");
  expect_failure(command({"--kind", "landmark", "--landmarks", path("photos")}),
                 "--control-images: is missing: a landmark cannot be computed");
  EXPECT_FALSE(fs::exists(folder_ / "made"));

  const ProgramResult result = expect_success(
      command({"--kind", "canny", "--result", path("result.json"), "--html", path("page.html")}));
  EXPECT_NE(result.out.find("2 samples of 2 units"), std::string::npos) << result.out;
  const io::Image made = io::read_image(folder_ / "made/b-s1.png");
  EXPECT_EQ(read_json_file(folder_ / "result.json").at("protocol").at("size"),
            "squares of " + std::to_string(made.width));

  fs::copy(folder_ / "photos/2_waves/a.png", folder_ / "photos/1_hills/a.png");
  expect_failure(command({"--kind", "canny"}), "both would use the same signal");
}

TEST_F(Eval, TheRecipesOfTheExamplesAreRight) {
  std::size_t recipes = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(RINGLET_SOURCE_DIR) / "examples/paper"))
    if (entry.path().extension() == ".toml") {
      expect_success({"eval", "compare", entry.path().string(), "--out", path("out"), "--dry-run"});
      ++recipes;
    }
  EXPECT_GE(recipes, 7u);
}

// Each cell's pictures are looked at by a program that the recipe names.
TEST_F(Eval, AComparisonByLandmarks) {
  fs::create_directories(folder_ / "landmarks");
  for (const char* name : {"a", "b", "c", "d"})
    std::ofstream(folder_ / "landmarks" / (std::string(name) + ".json")) << "[[3, 4], [0, 0]]";
  std::ofstream(folder_ / "recipe.toml")
      << "kind = 'control'\nmodel = '" << path("model") << "'\nseeds = [1, 2]\n"
      << "learning-rates = [1e-3]\n[train]\ninstance-images = '" << path("pictures")
      << "'\ncontrol = 'landmark'\ncontrol-images = '" << path("landmarks")
      << "'\nvalidation-pictures = 2\nsteps = 1\nresolution = 16\nsample-steps = 1\n"
      << "[eval]\nkind = 'landmark'\nreference = '" << path("pictures") << "'\nlandmarks = '"
      << path("landmarks") << "'\ncontrol-images = '" << path("landmarks")
      << "'\nsamples = 1\nsteps = 1\nfind-with = '" << finder()
      << "'\n[[method]]\nmethod = 'lora(rank=1)'\n";
  const ProgramResult result =
      expect_success({"eval", "compare", path("recipe.toml"), "--out", path("out")});
  EXPECT_NE(result.out.find("error in pixels (lower is better)"), std::string::npos) << result.out;
  EXPECT_EQ(names_in(folder_ / "out/cells/lora_rank_1_-lr0.001-seed2/pictures/found"),
            (std::set<std::string>{"a-s1.json", "b-s1.json", "c-s1.json", "d-s1.json"}));
}

// Two of them on one folder, as srun starts them: the programs that train their cells, which have
// the same environment, are no ranks of one run.
TEST_F(Eval, SeveralComparisonsShareTheCells) {
  write_recipe("[1e-3]", 1, "[[method]]\nmethod = 'lora(rank=1)'\n");
  const Arguments command = {"eval", "compare", path("recipe.toml"), "--out", path("out")};
  const auto start = [&](const char* task) {
    ProgramOptions options;
    options.environment = detail::usual_environment();
    options.environment->emplace_back("SLURM_STEP_NUM_TASKS=2");
    options.environment->emplace_back(std::string("SLURM_PROCID=") + task);
    return std::async(std::launch::async, [=] { return run_program(command, options); });
  };
  auto first = start("0"), second = start("1");
  const ProgramResult a = first.get(), b = second.get();
  EXPECT_EQ(a.status, 0) << a.err;
  EXPECT_EQ(b.status, 0) << b.err;
  const auto count = [](const std::string& text) {
    std::size_t found = 0;
    for (std::size_t at = text.find(": training"); at != std::string::npos;
         at = text.find(": training", at + 1))
      ++found;
    return found;
  };
  EXPECT_EQ(count(a.err) + count(b.err), 2u) << a.err << b.err;  // each cell once
  EXPECT_EQ(a.out, b.out);
}

// A member of a job array has no use for waiting.
TEST_F(Eval, AMemberThatDoesNotWaitLeavesCellsToTheOthers) {
  write_recipe("[1e-3]", 1, "[[method]]\nmethod = 'lora(rank=1)'\n");
  const fs::path cells = folder_ / "out/cells";
  Arguments command = {"eval", "compare", path("recipe.toml"), "--out", path("out"), "--no-wait"};
  fs::create_directories(cells / "lora_rank_1_-lr0.001-seed1");
  {
    const FolderLock other(cells / "lora_rank_1_-lr0.001-seed1/lock");
    ASSERT_TRUE(other);
    const ProgramResult left = expect_success(command);
    EXPECT_NE(left.err.find("left to other processes: 1;"), std::string::npos) << left.err;
    EXPECT_EQ(left.out, "");
    EXPECT_TRUE(fs::exists(cells / "lora_rank_1_-lr0.001-seed2/cost.json")) << left.err;
  }
  EXPECT_NE(expect_success(command).out.find("comparison.html"), std::string::npos);
}

// Ctrl-C reaches every process of the terminal's group; a training saves before it stops.
TEST_F(Eval, AStoppedComparisonLosesNoStep) {
  write_recipe("[1e-3]", 100000, "[[method]]\nname = 'LoRA'\nmethod = 'lora(rank=1)'\n");
  const fs::path train = folder_ / "out/cells/LoRA-lr0.001-seed1/train";
  ProgramOptions options;
  options.interrupt_when = [&] {
    std::error_code problem;
    return fs::file_size(train / "metrics.csv", problem) > 200 && !problem;
  };
  const Arguments command = {"eval", "compare", path("recipe.toml"), "--out", path("out")};
  const ProgramResult result = run_program(command, options);
  EXPECT_EQ(result.status, exit_status(ErrorCode::cancelled)) << result.err;
  EXPECT_FALSE(names_in(train / "checkpoints").empty());
}

TEST_F(Eval, CompareTrainsMeasuresAndReports) {
  const std::string methods =
      "[[method]]\nname = 'LoRA'\nmethod = 'lora(rank=1)'\n[[method]]\nname = 'TLoRA'\nmethod = "
      "'tlora'\nlearning-rates = [1e-3]\n[[method]]\nname = 'ControlNet'\nmethod = 'none'\n"
      "learning-rates = [1e-3]\ntrain = {control-network = 'controlnet'}\n";
  write_recipe("[1e-2, 1e-3]", 2, methods);
  const Arguments command = {"eval", "compare", path("recipe.toml"), "--out", path("out")};
  Arguments dry = command;
  dry.push_back("--dry-run");
  EXPECT_NE(expect_success(dry).out.find("3 methods x 2 seeds"), std::string::npos);
  Arguments early = command;
  early.push_back("--report-only");
  expect_failure(early, "not trained yet");

  const ProgramResult result = expect_success(command);
  EXPECT_NE(result.out.find("| TLoRA |"), std::string::npos) << result.out;
  for (const char* file :
       {"comparison.csv", "comparison.md", "comparison.html", "F1.png", "IoU.png", "samples.png"})
    EXPECT_TRUE(fs::exists(folder_ / "out" / file)) << file;
  EXPECT_EQ(names_in(folder_ / "out/cells").size(), 7u);  // 2 x LoRA's search, and five more
  // Done is done: the second time nothing is trained, and the result is the same.
  const std::string csv = read_bytes(folder_ / "out/comparison.csv");
  const ProgramResult again = expect_success(command);
  EXPECT_EQ(again.err.find("training"), std::string::npos) << again.err;
  EXPECT_EQ(read_bytes(folder_ / "out/comparison.csv"), csv);

  write_recipe("[1e-2, 1e-3]", 3, methods);
  expect_failure(command, "was made by: ringlet train");
  Arguments report = command;
  report.push_back("--report-only");
  expect_failure(report, "was made by: ringlet train");
  write_recipe("[1e-2, 1e-3]", 2, methods + "[[method]]\nmethod = 'nonsense'\n");
  expect_failure(command, "nonsense");
  Arguments precise = command;
  precise.insert(precise.end(), {"--precision", "bf16"});
  expect_failure(precise, "is set by the recipe");
}

// A rate of the search that diverges has lost; the others go on.
TEST_F(Eval, ADivergingRateLosesTheSearch) {
  write_recipe("[1e30, 1e-3]", 30, "[[method]]\nname = 'LoRA'\nmethod = 'lora(rank=1)'\n");
  const ProgramResult result =
      expect_success({"eval", "compare", path("recipe.toml"), "--out", path("out")});
  EXPECT_NE(result.err.find("LoRA-lr1e+30-seed1: diverged"), std::string::npos) << result.err;
  EXPECT_NE(result.out.find("| 0.001 | 2 |"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace ringlet::e2e
