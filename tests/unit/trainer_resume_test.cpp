// A run that goes on from a checkpoint equals one that was never interrupted.
#include <limits>
#include <set>
#include <stdexcept>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ringlet/core/processors.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/train/trainer.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;
using golden::uniform;

constexpr std::int64_t kSteps = 12;

/// A run with everything that has a state: accumulation, averages, clipping, a falling rate, an
/// start, and a step that is skipped.
struct ToyRun {
  explicit ToyRun(fs::path folder = {}, Json settings = {{"seed", 7}, {"batch size", 2}})
      : parameters{trainable("w", {5}), trainable("v", {3, 4}), trainable("idle", {2})} {
    parameters[1].start = parameters[1].value.detach().clone();
    options.steps = kSteps;
    options.gradient_accumulation = 2;
    options.clip_norm = 1.5;
    options.learning_rate = {.peak = 0.05, .decay = Decay::cosine, .warmup = 3};
    options.ema_decay = 0.8;
    options.optimizer = adamw({.weight_decay = 0.1});
    options.checkpoint_folder = std::move(folder);
    options.settings = std::move(settings);
  }

  Trainer make() const {
    return {parameters, [this](std::int64_t n) { return loss(n); }, options};
  }

  at::Tensor loss(std::int64_t n) const {
    constexpr std::int64_t kBad = 9;
    const at::Tensor w = parameters[0].value, v = parameters[1].value;
    const std::string name = std::to_string(n);
    const at::Tensor sum = (w - 2.0 * uniform("w" + name, {5})).square().mean() +
                           (v * uniform("v" + name, {3, 4})).tanh().sum() +
                           w.sum() * v.square().mean();
    return n == kBad ? sum * std::numeric_limits<double>::infinity() : sum;
  }

  std::vector<Trainable> parameters;
  TrainerOptions options;
};

struct Outcome {
  std::vector<StepResult> reports;
  std::vector<at::Tensor> values, averages;
  std::int64_t skipped = 0;
};

Outcome outcome_of(const ToyRun& run, Trainer& trainer) {
  Outcome out;
  trainer.run([&](const StepResult& report) {
    out.reports.push_back(report);
    return true;
  });
  out.values = values_of(run.parameters);
  trainer.swap_averages();
  out.averages = values_of(run.parameters);
  trainer.swap_averages();
  out.skipped = trainer.skipped();
  return out;
}

const Outcome& uninterrupted() {
  static const Outcome outcome = [] {
    const ToyRun run;
    Trainer trainer = run.make();
    return outcome_of(run, trainer);
  }();
  return outcome;
}

/// The checkpoint after `steps` steps of a run that was stopped there.
fs::path stopped_after(std::int64_t steps, const fs::path& folder) {
  const ToyRun run(folder);
  Trainer trainer = run.make();
  EXPECT_FALSE(trainer.run([&](const StepResult& report) { return report.step < steps; }));
  return *CheckpointFolder(folder, 1).latest();
}

bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Whether the later part of the uninterrupted run is this, bit for bit.
bool same_end(const Outcome& outcome) {
  const Outcome& whole = uninterrupted();
  const std::size_t first = whole.reports.size() - outcome.reports.size();
  for (std::size_t i = 0; i < outcome.reports.size(); ++i) {
    const StepResult &a = outcome.reports[i], &b = whole.reports[first + i];
    if (a.step != b.step || !same_number(a.loss, b.loss) || a.learning_rate != b.learning_rate ||
        !same_number(a.gradient_norm, b.gradient_norm) || a.skipped != b.skipped)
      return false;
  }
  return outcome.skipped == whole.skipped && same_bits(outcome.values, whole.values) &&
         same_bits(outcome.averages, whole.averages);
}

TEST(Resume, IsBitExactAfterEveryStep) {
  EXPECT_EQ(uninterrupted().skipped, 1);
  for (std::int64_t k = 1; k < kSteps; ++k) {
    SCOPED_TRACE(k);
    const TemporaryFolder folder;
    const fs::path checkpoint = stopped_after(k, folder.path());
    const ToyRun run;
    Trainer trainer = run.make();
    trainer.resume(checkpoint);
    EXPECT_EQ(trainer.steps_done(), k);
    const Outcome outcome = outcome_of(run, trainer);
    EXPECT_EQ(outcome.reports.size(), static_cast<std::size_t>(kSteps - k));
    EXPECT_TRUE(same_end(outcome));
  }
}

TEST(Resume, SeveralTimesIsBitExactToo) {
  const TemporaryFolder folder;
  for (const std::int64_t k : {2, 3, 7}) {
    const ToyRun run(folder.path());
    Trainer trainer = run.make();
    if (const auto latest = CheckpointFolder(folder.path(), 1).latest()) trainer.resume(*latest);
    trainer.run([&](const StepResult& report) { return report.step < k; });
  }
  const ToyRun run(folder.path());
  Trainer trainer = run.make();
  trainer.resume(folder / "step-00000007.safetensors");
  EXPECT_TRUE(same_end(outcome_of(run, trainer)));
}

// Sums depend on the number of threads in their last digits.
TEST(Resume, GoesOnWithTheThreadsOfTheCheckpoint) {
  const int before = at::get_num_threads();
  const TemporaryFolder folder;
  at::set_num_threads(1);
  const fs::path checkpoint = stopped_after(3, folder.path());
  EXPECT_EQ(CheckpointFolder::load(checkpoint).threads, 1);
  at::set_num_threads(2);
  for (const bool choose : {false, true}) {
    ToyRun run;
    run.options.choose_threads = choose;
    Trainer trainer = run.make();
    trainer.resume(checkpoint);
    int threads = 0;
    trainer.run([&](const StepResult&) {
      threads = at::get_num_threads();
      return true;
    });
    const bool chosen = choose && allowed_processors() > 1;
    EXPECT_EQ(threads, chosen ? 1 : 2);
  }
  at::set_num_threads(before);
}

// The third way: a run that only says that it goes on.
TEST(Resume, AColdStartIsNoResume) {
  const TemporaryFolder folder;
  const ToyRun run;
  Trainer trainer = run.make();
  Outcome outcome = outcome_of(run, trainer);
  EXPECT_TRUE(same_end(outcome));
  const fs::path checkpoint = stopped_after(5, folder.path());
  // The parameters alone, without the optimiser's state.
  const ToyRun cold;
  const TrainState state = CheckpointFolder::load(checkpoint);
  for (const Trainable& parameter : cold.parameters)
    parameter.value.detach().copy_(state.tensors.at("parameter." + parameter.name));
  Trainer second = cold.make();
  EXPECT_FALSE(same_end(outcome_of(cold, second)));
}

void save_state(const fs::path& file, const TrainState& state) {
  io::Metadata metadata = {{"format", "ringlet.train_state"}, {"version", "1"}};
  metadata["step"] = std::to_string(state.step);
  metadata["updates"] = std::to_string(state.updates);
  metadata["skipped"] = std::to_string(state.skipped);
  metadata["settings"] = state.settings.dump();
  io::save_tensors(file, state.tensors, metadata);
}

// No field is dead: each changes what follows.
TEST(Resume, EveryFieldOfTheStateMatters) {
  const TemporaryFolder folder;
  const fs::path checkpoint = stopped_after(5, folder.path());
  const auto resumed = [&](const TrainState& state) {
    save_state(folder / "changed.safetensors", state);
    const ToyRun run;
    Trainer trainer = run.make();
    trainer.resume(folder / "changed.safetensors");
    return same_end(outcome_of(run, trainer));
  };
  const TrainState good = CheckpointFolder::load(checkpoint);
  EXPECT_TRUE(resumed(good));
  EXPECT_EQ(good.tensors.size(), 12u);
  for (const auto& entry : good.tensors) {
    TrainState state = good;
    state.tensors[entry.first] = entry.second + 1e-3;
    // A parameter without gradient has no moments.
    const bool dead = entry.first == "exp_avg.idle" || entry.first == "exp_avg_sq.idle";
    EXPECT_EQ(resumed(state), dead) << entry.first;
  }
  for (std::int64_t TrainState::*count :
       {&TrainState::step, &TrainState::updates, &TrainState::skipped}) {
    TrainState state = good;
    ++(state.*count);
    EXPECT_FALSE(resumed(state));
  }
}

/// resume() must refuse and leave all as it was: the run that follows is the uninterrupted one.
void expect_refused(const fs::path& checkpoint, const ToyRun& run, ErrorCode code,
                    const std::vector<std::string>& words) {
  Trainer trainer = run.make();
  for (const std::string& word : words)
    expect_error(code, word, [&] { trainer.resume(checkpoint); });
  EXPECT_EQ(trainer.steps_done(), 0);
  EXPECT_TRUE(same_end(outcome_of(run, trainer)));
}

TEST(Resume, OtherSettingsAreRefusedByName) {
  const TemporaryFolder folder;
  const fs::path checkpoint = stopped_after(5, folder.path());
  const auto with = [](Json settings) { return ToyRun({}, std::move(settings)); };
  expect_refused(checkpoint, with({{"seed", 8}, {"batch size", 2}}), ErrorCode::mismatch,
                 {"seed was 7, now 8", "step-00000005", "another folder"});
  expect_refused(checkpoint, with({{"seed", 8}, {"batch size", 4}}), ErrorCode::mismatch,
                 {"batch size was 2, now 4; seed was 7, now 8"});
  expect_refused(checkpoint, with({{"seed", "7"}, {"batch size", 2}}), ErrorCode::mismatch,
                 {"seed was 7, now \"7\""});
  expect_refused(checkpoint, with({{"seed", 7}}), ErrorCode::mismatch,
                 {"batch size was 2, now nothing"});
}

// A checkpoint of an earlier ringlet can be used by a later one that has more settings.
TEST(Resume, SettingsThatTheCheckpointDoesNotKnowAreAWarning) {
  const TemporaryFolder folder;
  const fs::path checkpoint = stopped_after(5, folder.path());
  const ToyRun run({}, {{"seed", 7}, {"batch size", 2}, {"new one", 3}});
  Trainer trainer = run.make();
  const LogCapture log;
  trainer.resume(checkpoint);
  EXPECT_NE(log.warnings().find("does not record whether these are unchanged: new one"),
            std::string::npos)
      << log.warnings();
  EXPECT_TRUE(same_end(outcome_of(run, trainer)));
}

TEST(Resume, ParametersThatDoNotFitAreRefused) {
  const TemporaryFolder folder;
  const fs::path checkpoint = stopped_after(5, folder.path());
  const TrainState good = CheckpointFolder::load(checkpoint);
  for (const auto& entry : good.tensors) {
    TrainState state = good;
    state.tensors.erase(entry.first);
    save_state(folder / "changed.safetensors", state);
    expect_refused(folder / "changed.safetensors", ToyRun(), ErrorCode::mismatch,
                   {"\"" + entry.first + "\" is missing"});
  }
  TrainState more = good;
  more.tensors["average.u"] = at::ones({1});
  save_state(folder / "changed.safetensors", more);
  expect_refused(folder / "changed.safetensors", ToyRun(), ErrorCode::mismatch,
                 {"\"average.u\" does not belong here"});
  TrainState shape = good;
  shape.tensors["parameter.v"] = at::ones({4, 3});
  save_state(folder / "changed.safetensors", shape);
  expect_refused(folder / "changed.safetensors", ToyRun(), ErrorCode::mismatch,
                 {"\"parameter.v\" has another shape"});
}

TEST(Resume, StepsMayGrowButNotShrink) {
  const TemporaryFolder folder;
  const fs::path checkpoint = stopped_after(5, folder.path());
  ToyRun longer;
  longer.options.steps = kSteps + 2;
  Trainer trainer = longer.make();
  trainer.resume(checkpoint);
  EXPECT_EQ(outcome_of(longer, trainer).reports.back().step, kSteps + 2);
  ToyRun shorter;
  shorter.options.steps = 4;
  Trainer refused = shorter.make();
  expect_error(ErrorCode::invalid_argument, "done 5 steps already",
               [&] { refused.resume(checkpoint); });
}

// A step that a checkpoint counts as done has been observed, so that no row of metrics is missing
// after a kill between the two; what may fail comes behind.
TEST(Resume, ObservingComesBeforeTheCheckpointAndPicturesAfterIt) {
  const TemporaryFolder folder;
  ToyRun run(folder.path());
  run.options.checkpoint_every = 2;
  Trainer trainer = run.make();
  const auto saved = [&](std::int64_t step) {
    const auto latest = CheckpointFolder(folder.path(), 1).latest();
    return latest && CheckpointFolder::load(*latest).step == step;
  };
  std::vector<std::int64_t> observed, followed;
  EXPECT_TRUE(trainer.run(
      [&](const StepResult& report) {
        EXPECT_FALSE(saved(report.step));
        observed.push_back(report.step);
        return true;
      },
      [&](std::int64_t step) {
        EXPECT_EQ(saved(step), step % 2 == 0);
        EXPECT_EQ(observed.back(), step);
        followed.push_back(step);
      }));
  EXPECT_EQ(observed, followed);
  EXPECT_EQ(observed.size(), static_cast<std::size_t>(kSteps));
}

TEST(Resume, AStopSavesAtOnce) {
  const TemporaryFolder folder;
  ToyRun run(folder.path());
  run.options.checkpoint_every = 5;
  Trainer trainer = run.make();
  std::int64_t followed = 0;
  EXPECT_FALSE(trainer.run([&](const StepResult& report) { return report.step < 7; },
                           [&](std::int64_t step) { followed = step; }));
  EXPECT_EQ(followed, 6);
  EXPECT_EQ(trainer.steps_done(), 7);
  EXPECT_EQ(CheckpointFolder(folder.path(), 1).latest(), folder / "step-00000007.safetensors");
  EXPECT_TRUE(trainer.run());  // the same object can go on
  EXPECT_EQ(entry_count(folder.path()), 4u);
}

TEST(Resume, AStopAtTheLastStepIsTheEnd) {
  const TemporaryFolder folder;
  const ToyRun run(folder.path());
  Trainer trainer = run.make();
  EXPECT_TRUE(trainer.run([](const StepResult& report) { return report.step < kSteps; }));
  EXPECT_EQ(entry_count(folder.path()), 2u);
}

TEST(Resume, AFailingObserverLeavesTheEarlierCheckpoint) {
  const TemporaryFolder folder;
  ToyRun run(folder.path());
  run.options.checkpoint_every = 1;
  Trainer trainer = run.make();
  expect_error(ErrorCode::internal, "no", [&] {
    trainer.run([](const StepResult& report) -> bool {
      if (report.step == 4) throw std::runtime_error("no");
      return true;
    });
  });
  const ToyRun next;
  Trainer resumed = next.make();
  resumed.resume(folder / "step-00000003.safetensors");
  EXPECT_TRUE(same_end(outcome_of(next, resumed)));
}

}  // namespace
}  // namespace ringlet::train
