// A task that this file alone defines goes through a whole run: nothing else knows it.
#include "ringlet/train/run.h"

#include <array>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/random.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/train/metrics_file.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "tests/two_ranks.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kToyWidth = 12;

/// What the toy task is to do beside its work.
struct ToyOptions {
  std::int64_t examples = 20;
  bool sheet = false;                 ///< observations have pictures
  bool fails = false;                 ///< observations fail
  double row_bytes = 0.0;             ///< what a row is said to need
  std::string seasoning = "thyme";    ///< a setting that is known at once
  std::string found = "at the shop";  ///< one that takes time to find
  std::function<void()> damage = [] {};
};

/// Teaches a linear layer the numbers that it is shown, turned around.
class ToyTask final : public Task {
 public:
  ToyTask(ToyOptions toy, const RunOptions& run)
      : toy_(std::move(toy)),
        run_(run),
        source_(std::make_shared<nn::RandomStore>(7), {.trainable = run.full()}),
        layer_(source_.at("layer"), kToyWidth, kToyWidth),
        network_(source_.finish()) {
    if (toy_.examples < 1) throw Error(ErrorCode::invalid_argument, Field("toy"), "no examples");
  }

  adapt::Components components() const override { return {{"toy", &network_}}; }
  std::vector<Trainable> trainables() const override { return train::trainables(network_); }
  std::int64_t epoch_size() const override { return toy_.examples; }
  std::string example_size() const override { return std::to_string(kToyWidth) + " numbers"; }
  std::optional<MemoryNeed> memory(const Learners& learners,
                                   const MemorySavings& savings) const override {
    const auto rows = static_cast<double>((run_.batch_size + savings.parts - 1) / savings.parts);
    return MemoryNeed{.beside = static_cast<std::uint64_t>(4 * learners.parameters),
                      .blocks = {{.before = toy_.row_bytes * rows}}};
  }
  bool divisible() const override { return true; }
  Lines plan_lines(const Spelling& option) const override {
    return {{"network", "a layer, see " + option("toy")}};
  }
  Json plan_json(const Spelling&) const override { return {{"width", kToyWidth}}; }
  void check(const StageProgress&) override { toy_.damage(); }
  Json settings() const override {
    return {{"seasoning", toy_.seasoning}, {"found", nullptr}, {"model", nullptr}};
  }
  Json prepare(const Learners& learners, const StageProgress& progress) override {
    EXPECT_EQ(learners.adapters == nullptr, run_.full());
    if (progress && !progress("cooking", 1, 1))
      throw Error(ErrorCode::cancelled, "training", "stopped");
    return {{"found", toy_.found}, {"model", "a hash"}};
  }
  at::Tensor loss(std::int64_t micro_batch, const BatchPart& part) const override {
    const at::Tensor errors = row_errors(static_cast<std::uint64_t>(micro_batch), part.of);
    return errors.narrow(0, part.begin, part.end - part.begin).sum() / part.of;
  }
  ObservationRules observation_rules() const override {
    return {.what = "toy pictures", .pictures = toy_.sheet, .needed = !toy_.sheet};
  }
  Observation observe(std::int64_t) const override {
    if (toy_.fails) throw Error(ErrorCode::io, "toy", "cannot be seen");
    Observation seen{{{"error", false, error_of(1000).item<double>()}}, {}};
    if (toy_.sheet) seen.pictures = waves(1, 8, 8);
    return seen;
  }
  void save_model(const fs::path& folder, at::ScalarType precision) const override {
    make_folder(folder);
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, tensor] : network_.tensors)
      tensors.emplace(name, tensor.detach().to(precision));
    io::save_tensors(folder / "toy.safetensors", tensors);
  }
  void complete(adapt::AdapterFileInfo& info) const override {
    info.extra.emplace("toy.seasoning", toy_.seasoning);
  }
  std::string companion() const override { return "beside"; }
  void save_companion(const fs::path& folder, at::ScalarType) const override {
    make_folder(folder);
    write_file_atomically(folder / "note.txt", toy_.seasoning);
  }

 private:
  at::Tensor error_of(std::uint64_t number) const { return row_errors(number, 4).mean(); }
  at::Tensor row_errors(std::uint64_t number, std::int64_t rows) const {
    const at::Tensor x = at::empty({rows, kToyWidth});
    Random(run_.seed)
        .stream("toy", number)
        .fill_normal({x.data_ptr<float>(), static_cast<std::size_t>(x.numel())});
    return (layer_(x) - x.flip(1)).pow(2).mean(1);
  }

  const ToyOptions toy_;
  const RunOptions& run_;
  nn::WeightSource source_;
  nn::Linear layer_;
  nn::ModuleIndex network_;
};

class RunTest : public testing::Test {
 protected:
  using Run = train::Run;  // testing::Test has another one

  RunOptions options(const std::string& out) const {
    RunOptions o;
    o.learning = adapt::parse_method("trm(rank=2)+lora(rank=2)");
    o.targets.include = {"toy.*"};
    o.dropout.rank = 0.2;
    o.out = folder_ / out / "run";
    o.seed = 3;
    o.batch_size = 4;
    o.observe_every = 2;
    o.trainer.steps = 6;
    o.trainer.gradient_accumulation = 2;
    o.trainer.learning_rate.peak = 1e-2;
    o.trainer.ema_decay = 0.9;
    return o;
  }
  static OpenTask toy(const ToyOptions& toy = {}) {
    return [toy](const RunOptions& run) { return std::make_unique<ToyTask>(toy, run); };
  }
  static RunObserver stop_after(std::int64_t step) {
    return {.progress = {}, .step = [=](const StepResult& r) { return r.step < step; }};
  }
  TemporaryFolder folder_;
};

TEST_F(RunTest, ATaskOfItsOwnIsPlannedTrainedMeasuredSavedAndReported) {
  RunOptions o = options("whole");
  o.metadata = adapt::MetadataLevel::full;
  Run run(o, toy());
  EXPECT_EQ(run.plan().layers, 1u);
  EXPECT_EQ(run.plan().steps, 6);
  EXPECT_DOUBLE_EQ(run.plan().epochs, 6.0 * 2.0 * 4.0 / 20.0);
  EXPECT_EQ(run.plan().expected_bytes, static_cast<std::uint64_t>(4 * run.plan().parameters));
  EXPECT_FALSE(fs::exists(o.out));  // a plan writes nothing
  std::vector<std::string> stages;
  EXPECT_TRUE(run.run({.progress =
                           [&](const std::string& stage, std::size_t, std::size_t) {
                             stages.push_back(stage);
                             return true;
                           },
                       .step = {}}));
  EXPECT_EQ(stages, std::vector<std::string>{"cooking"});

  const std::vector<ScoreRow> scores = run.scores();
  ASSERT_EQ(scores.size(), 4u);  // before, after steps 2 and 4, and after all
  EXPECT_EQ(scores[1].step, 2);
  EXPECT_FALSE(scores[1].scores[0].higher_is_better);
  EXPECT_LT(scores.back().scores[0].value, scores.front().scores[0].value);
  EXPECT_EQ(file_content(o.out / "scores.csv").substr(0, 11), "step,error\n");

  const nn::WeightSource source(std::make_shared<nn::RandomStore>(7));
  const nn::Linear layer(source.at("layer"), kToyWidth, kToyWidth);
  const nn::ModuleIndex base = source.finish();
  const adapt::AdapterFileInfo info = adapt::load_adapter(run.result(), {{"toy", &base}}).info;
  EXPECT_EQ(info.base_hash, "a hash");
  EXPECT_EQ(info.extra.at("toy.seasoning"), "thyme");
  EXPECT_EQ(info.extra.at("modelspec.title"), "run");
  const Json training = parse_json(info.training, "training");
  EXPECT_EQ(training.at("found"), "at the shop");
  EXPECT_EQ(training.at("steps"), 6);
  EXPECT_EQ(training.at("batch size"), 4);
  EXPECT_EQ(file_content(*run.companion() / "note.txt"), "thyme");
  const std::string report = file_content(run.report_file());
  EXPECT_NE(report.find("error of held-out examples"), std::string::npos);
  EXPECT_NE(report.find("seasoning"), std::string::npos);
}

// n ranks with batches of b: one with batches of n * b, whatever is drawn for a batch (here ranks
// that are dropped), also when the number of ranks changes over a checkpoint.
TEST_F(RunTest, RanksShareABatch) {
  const RunOptions whole = options("whole");
  ASSERT_TRUE(Run(whole, toy()).run());
  RunOptions shared = options("shared");
  const auto as_ranks = [&](const RunObserver& observer) {
    TwoRanks ranks;
    std::array<std::unique_ptr<Run>, 2> runs;
    for (std::size_t rank = 0; rank < 2; ++rank) {
      RunOptions o = shared;
      o.batch_size = 2;
      o.trainer.data_parallel = {static_cast<std::int64_t>(rank), 2, ranks.reduction(rank)};
      runs[rank] = std::make_unique<Run>(o, toy());
    }
    EXPECT_DOUBLE_EQ(runs[0]->plan().epochs, 6.0 * 2.0 * 4.0 / 20.0);
    as_two_ranks([&](std::size_t rank) { runs[rank]->run(observer); });
  };
  as_ranks(stop_after(3));  // all of them one step later
  EXPECT_EQ(read_metrics(shared.out / "metrics.csv").size(), 4u);
  shared.resume = true;
  as_ranks({});
  const auto expected = read_metrics(whole.out / "metrics.csv");
  const auto rows = read_metrics(shared.out / "metrics.csv");
  ASSERT_EQ(rows.size(), expected.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_NEAR(rows[i].loss, expected[i].loss, 1e-6) << i;
    EXPECT_NEAR(rows[i].gradient_norm, expected[i].gradient_norm, 1e-6) << i;
  }
  EXPECT_EQ(file_content(shared.out / "scores.csv").substr(0, 11), "step,error\n");

  RunOptions one = shared;  // the last checkpoint, with all of the batch again
  one.trainer.steps = 8;
  EXPECT_TRUE(Run(one, toy()).run());
  RunOptions other = one;
  other.batch_size = 3;
  expect_error(ErrorCode::mismatch, "batch size was 4, now 3", [&] { Run(other, toy()); });
}

TEST_F(RunTest, AStepIsMeasuredWithoutARun) {
  const RunOptions o = options("measured");
  Run run(o, toy());
  EXPECT_GT(run.measure_step(), 0.0);
  EXPECT_FALSE(fs::exists(o.out));
}

TEST_F(RunTest, TheBestStepIsKeptAndARunWithoutABetterOneEnds) {
  RunOptions o = options("best");
  o.best = {.name = "error", .patience = 2};
  o.observe_every = 1;
  o.trainer.steps = 40;
  o.trainer.learning_rate.peak = 3.0;  // at once far away
  o.trainer.ema_decay = 0.0;
  o.trainer.gradient_accumulation = 1;
  const LogCapture log;
  Run run(o, toy());
  EXPECT_TRUE(run.run());
  const std::vector<ScoreRow> scores = run.scores();
  std::size_t best = 0;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (scores[i].scores[0].value < scores[best].scores[0].value) best = i;
  EXPECT_EQ(scores.size(), best + 3);
  EXPECT_LT(scores.back().step, 40);
  const auto steps_in = [](const fs::path& file) {
    const auto header = io::SafetensorsFile::open(file);
    return parse_json(header->metadata().at("ringlet.training"), "training").at("steps");
  };
  EXPECT_EQ(steps_in(*run.best()), scores[best].step);
  EXPECT_EQ(steps_in(run.result()), scores.back().step);

  // Resumed before its end, it ends at the same step.
  RunOptions parts = o;
  parts.out = folder_ / "parts" / "run";
  EXPECT_FALSE(Run(parts, toy()).run(stop_after(1)));
  parts.resume = true;
  Run again(parts, toy());
  EXPECT_TRUE(again.run());
  EXPECT_EQ(file_content(parts.out / "scores.csv"), file_content(o.out / "scores.csv"));
  EXPECT_TRUE(file_content(parts.out / "best.safetensors") ==
              file_content(o.out / "best.safetensors"));

  o.out = folder_ / "wrong" / "run";
  o.best.name = "eror";
  expect_error(ErrorCode::invalid_argument, "there are error", [&] { Run(o, toy()).run(); });
  o.best.name = "";
  expect_error(ErrorCode::invalid_argument, "early_stop: it needs a score", [&] { Run(o, toy()); });
  o.best = {.name = "error", .patience = 0};
  o.observe_every = 0;
  expect_error(ErrorCode::invalid_argument, "best_by: scores are measured", [&] { Run(o, toy()); });
}

TEST_F(RunTest, ARunStartsFromAnAdapterOfItsMethodRanksAndLayers) {
  RunOptions first = options("first");
  first.learning = adapt::parse_method("trm(rank=3)+lora(rank=5,alpha=2)");
  first.trainer.ema_decay = 0.0;
  ASSERT_TRUE(Run(first, toy()).run());
  RunOptions second = options("second");  // says another method: the file's counts
  second.targets = {};
  second.init_adapter = first.out / "adapter.safetensors";
  second.trainer.learning_rate.peak = 1e-12;
  second.trainer.ema_decay = 0.0;
  Run run(second, toy());
  EXPECT_EQ(run.plan().method, "trm(init=asymmetric,rank=3)+lora(alpha=2,rank=5)");
  ASSERT_TRUE(run.run());
  const auto before = io::load_tensors(first.out / "adapter.safetensors");
  const auto after = io::load_tensors(second.out / "adapter.safetensors");
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, tensor] : after)
    EXPECT_TRUE(at::allclose(tensor, before.at(name), 1e-5, 1e-6)) << name;

  second.resume = true;
  EXPECT_TRUE(Run(second, toy()).run());
  second.init_adapter = second.out / "adapter.safetensors";
  expect_error(ErrorCode::mismatch, "initial adapter was", [&] { Run(second, toy()); });
  second.out = folder_ / "third" / "run";
  second.targets.include = {"toy.*"};
  expect_error(ErrorCode::invalid_argument, "include: layers and sizes are those",
               [&] { Run(second, toy()); });
  second.learning = AllWeights{};
  second.targets = {};
  second.dropout = {};
  expect_error(ErrorCode::invalid_argument, "init_adapter: it applies to adapters",
               [&] { Run(second, toy()); });
}

TEST_F(RunTest, EpochsAreStepsRoundedUp) {
  RunOptions o = options("epochs");
  o.epochs = 1.5;  // 30 examples, 8 at a step
  Run run(o, toy());
  EXPECT_EQ(run.plan().steps, 4);
  EXPECT_TRUE(run.run());
  EXPECT_EQ(run.scores().back().step, 4);
  o.epochs = 0.0;
  expect_error(ErrorCode::invalid_argument, "epochs: must be larger than 0",
               [&] { Run(o, toy()); });
}

TEST_F(RunTest, WhereverItIsStoppedAResumedRunIsTheUninterruptedOne) {
  const RunOptions whole = options("whole");
  ASSERT_TRUE(Run(whole, toy()).run());
  const std::string expected = file_content(whole.out / "adapter.safetensors");
  for (const std::int64_t stop : {1, 2, 5}) {
    SCOPED_TRACE(stop);
    RunOptions parts = options("parts" + std::to_string(stop));
    EXPECT_FALSE(Run(parts, toy()).run(stop_after(stop)));
    EXPECT_FALSE(fs::exists(parts.out / "adapter.safetensors"));
    EXPECT_TRUE(fs::exists(parts.out / "report.html"));
    parts.resume = true;
    Run again(parts, toy());
    EXPECT_EQ(again.plan().first_step, stop);
    EXPECT_TRUE(again.run());
    EXPECT_TRUE(file_content(parts.out / "adapter.safetensors") == expected);
    // The scores that the interruption at step 2 prevented are made up for.
    EXPECT_EQ(file_content(parts.out / "scores.csv"), file_content(whole.out / "scores.csv"));
    EXPECT_EQ(again.scores().size(), 4u);
  }
  RunOptions other = options("other");
  other.seed = 4;
  ASSERT_TRUE(Run(other, toy()).run());
  EXPECT_FALSE(file_content(other.out / "adapter.safetensors") == expected);
}

TEST_F(RunTest, ALimitDividesBatchesAndAResumedRunRepeatsIt) {
  const RunOptions whole = options("whole");
  ASSERT_TRUE(Run(whole, toy()).run());
  const auto tensors_of = [](const RunOptions& o) {
    return io::load_tensors(o.out / "adapter.safetensors");
  };
  const ToyOptions hungry{.row_bytes = 1e6};
  RunOptions parts = options("parts");
  parts.memory_limit = 2'500'000;  // two of four rows
  {
    Run run(parts, toy(hungry));
    EXPECT_EQ(run.options().savings.parts, 2);
    EXPECT_GT(run.plan().extra_work, 0.0);
    EXPECT_LE(run.plan().expected_bytes, parts.memory_limit);
    EXPECT_GT(run.plan().expected_bytes, 2'000'000u);
    EXPECT_TRUE(run.run());
    EXPECT_NE(file_content(run.report_file()).find("memory savings"), std::string::npos);
  }
  const auto expected = tensors_of(whole);
  for (const auto& [name, tensor] : tensors_of(parts))
    EXPECT_TRUE(at::allclose(tensor, expected.at(name), 1e-4, 1e-6)) << name;

  // The machine to go on has another limit, or none: the run is the same bit for bit.
  for (const std::uint64_t later : {std::uint64_t{0}, std::uint64_t{1'200'000}}) {
    RunOptions some = options("some" + std::to_string(later));
    some.memory_limit = parts.memory_limit;
    EXPECT_FALSE(Run(some, toy(hungry)).run(stop_after(3)));
    some.resume = true;
    some.memory_limit = later;
    const LogCapture log;
    Run again(some, toy(hungry));
    EXPECT_EQ(again.options().savings.parts, 2);
    EXPECT_EQ(log.warnings().find("above the limit") != std::string::npos, later > 0);
    EXPECT_TRUE(again.run());
    EXPECT_EQ(tensors_of(some).size(), expected.size());
    for (const auto& [name, tensor] : tensors_of(parts))
      EXPECT_TRUE(same_bits(tensors_of(some).at(name), tensor)) << name;
  }

  RunOptions tight = options("tight");
  tight.memory_limit = 1000;
  try {
    Run(tight, toy(hungry));
    ADD_FAILURE() << "it fits";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("nothing fits"), std::string::npos);
    EXPECT_NE(error.hint().find("memory_limit=1M"), std::string::npos) << error.hint();
  }
  EXPECT_FALSE(fs::exists(tight.out));
  for (const std::int64_t wrong : {std::int64_t{0}, std::int64_t{5}}) {
    RunOptions odd = options("odd");
    odd.savings.parts = wrong;
    expect_error(ErrorCode::invalid_argument, "has no", [&] { Run(odd, toy()); });
  }
}

TEST_F(RunTest, AResumedRunRepeatsItsSettings) {
  RunOptions o = options("run");
  EXPECT_FALSE(Run(o, toy()).run(stop_after(2)));
  expect_error(ErrorCode::invalid_argument, "resume", [&] { Run(o, toy()); });
  o.resume = true;
  // What is known before anything is prepared is compared then …
  RunOptions more = o;
  more.batch_size = 5;
  expect_error(ErrorCode::mismatch, "batch size was 4, now 5", [&] { Run(more, toy()); });
  expect_error(ErrorCode::mismatch, "seasoning was", [&] { Run(o, toy({.seasoning = "dill"})); });
  // … and what is found later, before the first step.
  Run later(o, toy({.found = "in the garden"}));
  expect_error(ErrorCode::mismatch, "found was", [&] { later.run(); });
  EXPECT_TRUE(Run(o, toy()).run());
  // The options are what was asked for, before and after.
  Run done(o, toy());
  EXPECT_TRUE(done.run());
  EXPECT_TRUE(done.options().trainer.settings.empty());
  EXPECT_TRUE(done.options().trainer.checkpoint_folder.empty());
}

TEST_F(RunTest, AllWeightsAreSavedByTheTask) {
  RunOptions o = options("full");
  o.learning = AllWeights{};
  o.targets = {};
  o.dropout = {};
  Run run(o, toy());
  EXPECT_EQ(run.plan().layers, 0u);
  EXPECT_EQ(run.plan().parameters, kToyWidth * kToyWidth + kToyWidth);
  ASSERT_TRUE(run.run());
  EXPECT_EQ(run.result(), o.out / "model");
  EXPECT_EQ(io::load_tensors(run.result() / "toy.safetensors").size(), 2u);
}

TEST_F(RunTest, AnObservationThatFailsEndsTheRunOnlyWhereItIsNeeded) {
  Run needed(options("needed"), toy({.fails = true}));
  expect_error(ErrorCode::io, "cannot be seen", [&] { needed.run(); });
  const LogCapture log;
  const RunOptions o = options("pictures");
  EXPECT_TRUE(Run(o, toy({.sheet = true, .fails = true})).run());
  EXPECT_NE(log.warnings().find("no toy pictures"), std::string::npos) << log.warnings();
  EXPECT_TRUE(fs::exists(o.out / "adapter.safetensors"));
  const RunOptions seen = options("seen");
  EXPECT_TRUE(Run(seen, toy({.sheet = true})).run());
  EXPECT_TRUE(fs::exists(seen.out / "samples/step-00000004.png"));
}

TEST_F(RunTest, OnlyErrorLeaves) {
  const RunOptions o = options("run");
  expect_error(ErrorCode::internal, "boom",
               [&] { Run(o, toy({.damage = [] { throw std::runtime_error("boom"); }})); });
  expect_error(ErrorCode::invalid_argument, "toy", [&] { Run(o, toy({.examples = 0})); });
  RunOptions none = o;
  none.trainer.steps = 0;
  // Before the task is opened.
  expect_error(ErrorCode::invalid_argument, "steps", [&] { Run(none, toy({.examples = 0})); });
  Run stopped(o, toy());
  expect_error(ErrorCode::cancelled, "stopped",
               [&] { stopped.run({.progress = [](auto&&...) { return false; }, .step = {}}); });
}

TEST_F(RunTest, ScoresOfAnotherRunAreRefused) {
  RunOptions o = options("run");
  EXPECT_FALSE(Run(o, toy()).run(stop_after(3)));
  o.resume = true;
  const std::string scores = file_content(o.out / "scores.csv");
  std::ofstream(o.out / "scores.csv") << "step,accuracy\n0,0.5\n";
  Run others(o, toy());
  expect_error(ErrorCode::bad_format, "scores of this run", [&] { others.run(); });
  std::ofstream(o.out / "scores.csv") << "what a day\n";
  Run none(o, toy());
  expect_error(ErrorCode::bad_format, "scores of this run", [&] { none.run(); });
}

}  // namespace
}  // namespace ringlet::train
