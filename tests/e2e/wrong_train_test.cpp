// What `ringlet train` refuses: the exit status and a message that helps.
#include "tests/e2e/wrong_input.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

void make_pictures(const fs::path& folder) { train::write_pictures(folder / "pictures", 1); }

/// `train` with these options, and usual ones for what they lack.
Arguments run(const Arguments& more) {
  Arguments all = {"train", "--steps", "1", "--resolution", "16"};
  for (const auto& [option, value] :
       std::vector<std::pair<std::string, std::string>>{{"--model", "@/model"},
                                                        {"--instance-images", "@/pictures"},
                                                        {"--instance-prompt", "a dog"},
                                                        {"--out", "@/out"}}) {
    const bool other_model = option == "--model" && std::ranges::find(more, "--init") != more.end();
    if (std::ranges::find(more, option) == more.end() && !other_model)
      all.insert(all.end(), {option, value});
  }
  for (const char* option : {"--steps", "--resolution"})
    if (const auto found = std::ranges::find(more, option); found != more.end())
      if (const auto at = std::ranges::find(all, option); at != all.end()) all.erase(at, at + 2);
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

class WrongTraining : public WrongInputTest {};

TEST_P(WrongTraining, IsExplained) { expect_explained(); }

/// An option with a value that cannot be.
WrongInput value(const char* name, const char* option, const char* text,
                 const std::vector<std::string>& words, int status = 2) {
  std::vector<std::string> all = words;
  all.emplace_back(option);
  return {name, run({option, text}), status, all, make_pictures};
}

const std::vector<WrongInput> kTrainCommandLine = {
    {"UnknownOption", run({"--instance-image", "x"}), 2, {"did you mean --instance-images?"}},
    {"KohyasName", run({"--max_train_steps", "9"}), 2, {"did you mean --steps?"}},
    {"PeftsName", run({"--lora_alpha=9"}), 2, {"did you mean --method \"lora(rank=N,alpha=A)\"?"}},
    {"MemoryUnit", run({"--memory-limit", "8Q"}), 2, {"--memory-limit", "8Q", "8G, 512M"}},
    {"NoMemory", run({"--memory-limit", "0"}), 2, {"--memory-limit", "above 0"}},
    {"NegativeMemory", run({"--memory-limit=-1G"}), 2, {"--memory-limit", "above 0"}},
    {"TooLittleMemory",
     run({"--memory-limit", "1M"}),
     9,
     {"nothing fits into 1.0 MiB", "the smallest limit that is enough is --memory-limit"},
     make_pictures},
    {"UnknownVerb", {"trian"}, 2, {"did you mean \"train\""}},
    {"NoOut", {"train", "--model", "x", "--instance-images", "y"}, 2, {"--out is required"}},
    {"NoPicturesOption",
     {"train", "--model", "x", "--out", "@/out"},
     2,
     {"--instance-images: the folder"}},
    {"NoModel",
     {"train", "--instance-images", "x", "--out", "@/out"},
     2,
     {"give either --model or --init"}},
    {"ModelAndInit",
     run({"--model", "@/model", "--init", "@/model"}),
     2,
     {"give either --model or --init"}},
    {"WordsWithoutQuotes", run({"sks", "dog"}), 2, {"\"sks\"", "in quotes"}},
};

const std::vector<WrongInput> kPictures = {
    {"FolderMissing", run({"--instance-images", "@/nope"}), 3, {"nope", "does not exist"}},
    {"FolderIsAFile",
     run({"--instance-images", "@/a.png"}),
     3,
     {"a.png", "not a folder"},
     [](const fs::path& folder) { write_text(folder / "a.png", "x"); }},
    {"FolderEmpty",
     run({}),
     3,
     {"pictures", "no pictures", ".webp"},
     [](const fs::path& folder) { write_text(folder / "pictures/a.gif", "x"); }},
    {"NoCaption",
     run({"--instance-prompt", ""}),
     2,
     {"a.png", "no caption", "--instance-prompt", "a.txt"},
     make_pictures},
    {"CaptionIsNoUtf8",
     run({}),
     4,
     {"a.txt", "UTF-8"},
     [](const fs::path& folder) {
       make_pictures(folder);
       write_text(folder / "pictures/a.txt", "caf\xE9");
     }},
    {"PromptIsNoUtf8", run({"--instance-prompt", "caf\xE9"}), 2, {"UTF-8"}, make_pictures},
    {"PictureDamaged",
     run({}),
     5,
     {"a.png"},
     [](const fs::path& folder) { write_text(folder / "pictures/a.png", "no picture"); }},
    {"ClassPicturesWithoutPrompt",
     run({"--class-images", "@/pictures"}),
     2,
     {"--class-images", "--class-prompt"},
     make_pictures},
};

const std::vector<WrongInput> kMethods = {
    value("MethodMisspelt", "--method", "lorra(rank=4)", {"did you mean \"lora\""}),
    value("MethodRankZero", "--method", "lora(rank=0)", {"rank"}),
    value("MethodUnfinished", "--method", "lora(rank=4", {"lora(rank=4"}),
    value("TargetsMisspelt", "--targets", "atention", {"did you mean \"attention\""}),
    value("PatternMatchesNothing", "--include", "*.to_z", {"matches no layer", "to_k"}),
    value("PatternIsNoRegularExpression", "--include", "re:[", {"regular expression"}),
    value("ExcludesEverything", "--exclude", "*", {"excludes every selected layer"}),
    value("FactorMatchesNothing", "--learning-rate-factor", "*.nowhere=2",
          {"matches no parameter"}),
    value("FactorWithoutNumber", "--learning-rate-factor", "*.transform.*", {"*.transform.*=0.5"}),
    value("FactorIsNoNumber", "--learning-rate-factor", "*.transform.*=x", {"not a number"}),
    value("FactorNegative", "--learning-rate-factor", "*.transform.*=-1", {"0 or above"}),
    value("PenaltyMisspelt", "--penalty", "ident:1", {"identity or orthogonal"}),
    value("PenaltyWithoutWeight", "--penalty", "identity", {"identity:1e-3"}),
    value("PenaltyIsNoNumber", "--penalty", "identity:x", {"not a number"}),
    value("PenaltyNegative", "--penalty", "identity:-1", {"negative"}),
    value("PenaltyNaN", "--penalty", "orthogonal:nan", {"negative"}),
    {"PenaltyOfAllWeights",
     run({"--method", "full", "--penalty", "identity:1"}),
     2,
     {"--penalty", "full"},
     make_pictures},
    {"TargetsOfAllWeights",
     run({"--method", "full", "--targets", "attention"}),
     2,
     {"--targets", "--method full has none"},
     make_pictures},
    {"FactorsOfLora",
     run({"--method", "lora(rank=2)", "--factors", "8=2x2x2"}),
     2,
     {"--factors", "lora(", "rings and trains"},
     make_pictures},
    value("FactorsOfNoWidth", "--factors", "7=1x1x7", {"splits no dimension of 7", "it splits"}),
    value("FactorsUnfinished", "--factors", "320", {"320=4x8x10"}),
    value("FactorsOfNoNumber", "--factors", "nan=4x8x10", {"not a number"}),
    {"ModelMissing", run({"--model", "@/nope"}), 3, {"nope", "does not exist"}, make_pictures},
};

const std::vector<WrongInput> kControl = {
    // Given, although with the value that they have anyway.
    value("NetworkWithoutControl", "--control-network", "encoder", {"give --control as well"}),
    value("ThresholdWithoutControl", "--canny-low", "100", {"give --control as well"}),
    value("SignalsWithoutControl", "--control-images", "x", {"give --control as well"}),
    value("PicturesWithoutControl", "--validation-pictures", "2", {"give --control as well"}),
    {"ThresholdOfAnotherSignal",
     run({"--control", "segmentation", "--canny-high", "200"}),
     2,
     {"--canny-high", "how canny finds edges", "leave it out"},
     make_pictures},
    {"ThresholdOfGivenSignals",
     run({"--control", "canny", "--control-images", "@/pictures", "--canny-low", "50"}),
     2,
     {"--canny-low", "how canny finds edges"},
     make_pictures},
    {"CountOfSamplesWithSignals",
     run({"--control", "canny", "--sample-images", "2"}),
     2,
     {"--sample-images", "held-out pictures", "--validation-pictures N"},
     make_pictures},
    {"PromptWithoutSignal",
     run({"--control", "canny", "--sample-prompt", "a dog"}),
     2,
     {"--sample-prompt", "no control signal", "--validation-pictures"},
     make_pictures},
};

const std::vector<WrongInput> kTrainNumbers = {
    value("StepsNegative", "--steps", "-5", {"larger than 0"}),
    value("StepsAreNoNumber", "--steps", "many", {"many", "--help"}),
    value("BatchSizeZero", "--batch-size", "0", {"larger than 0"}),
    value("AccumulationNegative", "--gradient-accumulation", "-1", {"larger than 0"}),
    value("RepeatsZero", "--repeats", "0", {"larger than 0"}),
    value("RateNegative", "--learning-rate", "-1e-4", {"larger than 0"}),
    value("RateNaN", "--learning-rate", "nan", {"larger than 0"}),
    value("WarmUpNegative", "--warmup-steps", "-1", {"negative"}),
    value("ScheduleMisspelt", "--learning-rate-schedule", "cosin", {"did you mean \"cosine\""}),
    value("OptimizerMisspelt", "--optimizer", "lyon", {"did you mean \"lion\""}),
    value("OptimizerUnknown", "--optimizer", "sophia", {"use adamw, adamw8bit"}),
    value("OptimizerOptionMisspelt", "--optimizer-options", "esp=1e-6", {"did you mean \"eps\""}),
    value("OptimizerOptionIsNoNumber", "--optimizer-options", "eps=x", {"it is a number"}),
    value("EpochsZero", "--epochs", "0", {"larger than 0"}),
    value("EpochsBesideSteps", "--epochs", "2", {"--steps", "--epochs says how long"}),
    value("WarmUpIsNeither", "--warmup-steps", "1.5", {"neither a number of steps"}),
    value("PartMatchesNothing", "--part-learning-rate", "te*=1e-5", {"matches no parameter"}),
    value("LossMisspelt", "--loss", "hubr", {"did you mean \"huber\""}),
    value("TimesTurnedAround", "--max-time", "0", {"--min-time", "below --max-time"}),
    {"TerminalSnrOfEpsilon",
     run({"--zero-terminal-snr"}),
     2,
     {"--zero-terminal-snr", "predicts epsilon"},
     make_pictures},
    value("EarlyStopWithoutScore", "--early-stop", "3", {"--best-by"}),
    value("OneBeta", "--betas", "0.9", {"0.9,0.999"}),
    value("BetaTooLarge", "--betas", "0.9,1", {"[0, 1)"}),
    value("DecayNegative", "--weight-decay", "-0.1", {"negative"}),
    value("ClipNormNegative", "--clip-norm", "-1", {"negative"}),
    value("AverageTooLong", "--ema", "1", {"[0, 1)"}),
    value("GammaNegative", "--min-snr-gamma", "-5", {"negative"}),
    value("OffsetNegative", "--noise-offset", "-0.1", {"negative"}),
    value("DropoutTooLarge", "--caption-dropout", "2", {"[0, 1)"}),
    value("PriorWeightNegative", "--prior-weight", "-1", {"negative"}),
    value("ClassCountZero", "--class-count", "0", {"at least 1"}),
    value("CheckpointsNegative", "--checkpoint-every", "-1", {"negative"}),
    value("NoCheckpointKept", "--keep-checkpoints", "0", {"at least 1"}),
    value("SamplesNegative", "--sample-every", "-1", {"negative"}),
    value("NoSampleSteps", "--sample-steps", "0", {"at least 1"}),
    value("ResolutionOdd", "--resolution", "17", {"17 is not a multiple of 2"}),
    value("ResolutionNegative", "--resolution", "-16", {"--resolution: must not be negative"}),
    value("CropUnknown", "--crop", "left", {"centre or random"}),
    value("ClipSkipTooLarge", "--clip-skip", "3", {"between 1 and 2"}),
    value("SeedNegative", "--seed", "-1", {"2^64"}),
    value("PredictionUnknown", "--prediction", "x0", {"epsilon or v"}),
    value("PrecisionUnknown", "--precision", "fp8", {"fp8"}),
};

/// A folder that looks like that of a run.
void earlier_run(const fs::path& folder) {
  make_pictures(folder);
  write_text(folder / "earlier/metrics.csv",
             "step,loss,learning_rate,gradient_norm,seconds,skipped\n");
}

const std::vector<WrongInput> kTrainFolders = {
    {"OutHoldsARun",
     run({"--out", "@/earlier"}),
     2,
     {"earlier", "holds a training run", "--resume", "another --out"},
     earlier_run},
    {"OutIsAFile",
     run({"--out", "@/file"}),
     7,
     {"file"},
     [](const fs::path& folder) {
       make_pictures(folder);
       write_text(folder / "file", "x");
     }},
    {"CacheIsAFile",
     run({"--cache", "@/file"}),
     7,
     {"file", "--cache"},
     [](const fs::path& folder) {
       make_pictures(folder);
       write_text(folder / "file", "x");
     }},
    {"CheckpointDamaged",
     run({"--out", "@/earlier", "--resume"}),
     4,
     {"step-00000007.safetensors"},
     [](const fs::path& folder) {
       make_pictures(folder);
       write_text(folder / "earlier/checkpoints/step-00000007.safetensors", "half");
     }},
    {"CheckpointIsNone",
     run({"--out", "@/earlier", "--resume"}),
     5,
     {"step-00000007.safetensors", "not a training checkpoint"},
     [](const fs::path& folder) {
       make_pictures(folder);
       fs::create_directories(folder / "earlier/checkpoints");
       io::save_tensors(folder / "earlier/checkpoints/step-00000007.safetensors",
                        {{"w", at::zeros({2})}});
     }},
};

INSTANTIATE_TEST_SUITE_P(CommandLine, WrongTraining, testing::ValuesIn(kTrainCommandLine), name_of);
INSTANTIATE_TEST_SUITE_P(Pictures, WrongTraining, testing::ValuesIn(kPictures), name_of);
INSTANTIATE_TEST_SUITE_P(Methods, WrongTraining, testing::ValuesIn(kMethods), name_of);
INSTANTIATE_TEST_SUITE_P(Control, WrongTraining, testing::ValuesIn(kControl), name_of);
INSTANTIATE_TEST_SUITE_P(Numbers, WrongTraining, testing::ValuesIn(kTrainNumbers), name_of);
INSTANTIATE_TEST_SUITE_P(Folders, WrongTraining, testing::ValuesIn(kTrainFolders), name_of);

}  // namespace
}  // namespace ringlet::e2e
