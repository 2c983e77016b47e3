// Two ranks in two threads compute what one computes with twice the accumulation.
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "ringlet/train/run_log.h"
#include "ringlet/train/trainer.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "tests/two_ranks.h"

namespace ringlet::train {
namespace {

using golden::uniform;

struct RankRun {
  RankRun(const std::filesystem::path& folder, std::int64_t accumulation, DataParallel ranks = {}) {
    parameters[1].start = parameters[1].value.detach().clone();
    options.steps = 6;
    options.gradient_accumulation = accumulation;
    options.clip_norm = 0.7;
    options.learning_rate.peak = 0.05;
    options.ema_decay = 0.9;
    options.checkpoint_every = 2;
    options.checkpoint_folder = folder;
    options.data_parallel = std::move(ranks);
    options.settings = settings_of(options);
  }
  Trainer make() const {
    const std::int64_t parts = options.micro_batch_parts;
    return {parameters, [this, parts](std::int64_t n) { return loss(n / parts) / parts; }, options};
  }
  /// "some" has a gradient on every third micro-batch only; micro-batch 5 is not finite.
  at::Tensor loss(std::int64_t n) const {
    const std::string name = std::to_string(n);
    at::Tensor sum = (parameters[0].value - uniform(name, {6})).square().sum() +
                     (parameters[1].value * uniform("v" + name, {2, 3})).tanh().sum();
    if (n % 3 == 0) sum = sum + parameters[2].value.square().sum();
    return n == 5 ? sum * std::numeric_limits<double>::infinity() : sum;
  }
  std::vector<StepResult> run() const {
    std::vector<StepResult> reports;
    make().run([&](const StepResult& report) {
      reports.push_back(report);
      return true;
    });
    return reports;
  }
  std::vector<Trainable> parameters = {trainable("w", {6}), trainable("v", {2, 3}),
                                       trainable("some", {4})};
  TrainerOptions options = {};
};

TEST(DataParallel, TwoRanksAreOneWithTwiceTheAccumulation) {
  for (const std::int64_t accumulation : {1, 2}) {
    SCOPED_TRACE(accumulation);
    const TemporaryFolder folder;
    const RankRun one(folder / "one", 2 * accumulation);
    const std::vector<StepResult> expected = one.run();
    TwoRanks ranks;
    std::vector<std::unique_ptr<RankRun>> runs;
    for (std::int64_t rank = 0; rank < 2; ++rank)
      runs.push_back(std::make_unique<RankRun>(
          folder / ("rank" + std::to_string(rank)), accumulation,
          DataParallel{rank, 2, ranks.reduction(static_cast<std::size_t>(rank))}));
    std::array<std::vector<StepResult>, 2> reports;
    as_two_ranks([&](std::size_t rank) { reports[rank] = runs[rank]->run(); });

    for (std::size_t rank = 0; rank < 2; ++rank) {
      ASSERT_EQ(reports[rank].size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(reports[rank][i].skipped, expected[i].skipped) << i;
        if (expected[i].skipped) continue;
        EXPECT_NEAR(reports[rank][i].loss, expected[i].loss, 1e-6) << i;
        EXPECT_NEAR(reports[rank][i].gradient_norm, expected[i].gradient_norm, 1e-6) << i;
      }
      // With one micro-batch each the order of the sums is the same, too.
      const auto values = values_of(runs[rank]->parameters), whole = values_of(one.parameters);
      if (accumulation == 1) {
        EXPECT_TRUE(same_bits(values, whole));
      }
      for (std::size_t i = 0; i < whole.size(); ++i)
        EXPECT_TRUE(at::allclose(values[i], whole[i], 0.0, 1e-6)) << one.parameters[i].name;
    }
    EXPECT_EQ(entry_count(folder / "rank0"), 4u);
    EXPECT_FALSE(std::filesystem::exists(folder / "rank1"));
  }
}

// Micro-batches in parts, beside accumulation and ranks.
TEST(DataParallel, PartsAddUpToTheirMicroBatches) {
  const TemporaryFolder folder;
  const RankRun whole(folder / "whole", 4);
  const std::vector<StepResult> expected = whole.run();
  TwoRanks ranks;
  std::vector<std::unique_ptr<RankRun>> runs;
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    runs.push_back(std::make_unique<RankRun>(
        folder / ("rank" + std::to_string(rank)), 2,
        DataParallel{rank, 2, ranks.reduction(static_cast<std::size_t>(rank))}));
    runs.back()->options.micro_batch_parts = 3;
  }
  std::array<std::vector<StepResult>, 2> reports;
  as_two_ranks([&](std::size_t rank) { reports[rank] = runs[rank]->run(); });
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(reports[0][i].skipped, expected[i].skipped) << i;
    if (!expected[i].skipped) {
      EXPECT_NEAR(reports[0][i].loss, expected[i].loss, 1e-5) << i;
    }
  }
  const auto values = values_of(runs[1]->parameters), all = values_of(whole.parameters);
  for (std::size_t i = 0; i < all.size(); ++i)
    EXPECT_TRUE(at::allclose(values[i], all[i], 0.0, 1e-5)) << whole.parameters[i].name;
}

// The checkpoint of one run is also that of two ranks which share its accumulation, and back.
TEST(DataParallel, RanksMayChangeOverACheckpoint) {
  const TemporaryFolder folder;
  const RankRun whole(folder / "whole", 2);
  whole.run();
  const RankRun first(folder / "parts", 2);
  first.make().run([](const StepResult& report) { return report.step != 4; });
  const auto checkpoint = *CheckpointFolder(folder / "parts", 1).latest();
  TwoRanks ranks;
  std::vector<std::unique_ptr<RankRun>> runs;
  for (std::int64_t rank = 0; rank < 2; ++rank)
    runs.push_back(std::make_unique<RankRun>(
        folder / "parts", 1,
        DataParallel{rank, 2, ranks.reduction(static_cast<std::size_t>(rank))}));
  as_two_ranks([&](std::size_t rank) {
    Trainer trainer = runs[rank]->make();
    trainer.resume(checkpoint);
    trainer.run();
  });
  for (const auto& run : runs)
    EXPECT_TRUE(same_bits(values_of(run->parameters), values_of(whole.parameters)));
}

TEST(DataParallel, OnlyTheFirstRankWritesALog) {
  const TemporaryFolder folder;
  for (const std::int64_t rank : {1, 0}) {
    const DataParallel ranks{rank, 2, [](auto&) {}};
    RunLog log(folder / "run", 0, ranks.writes());
    log.add({1, 0.5, 0.1, 0.2, 0.3, false});
    log.add_samples(1, waves(1));
    log.flush();
    EXPECT_EQ(log.write_report({}, ""), folder / "run/report.html");
    EXPECT_EQ(log.has_samples(1), rank == 0);
    EXPECT_EQ(std::filesystem::exists(folder / "run"), rank == 0);
  }
}

TEST(DataParallel, RanksThatMakeNoSenseAreRefused) {
  for (const DataParallel& ranks :
       {DataParallel{2, 2, [](auto&) {}}, DataParallel{-1, 1, {}}, DataParallel{0, 0, {}}})
    expect_error(ErrorCode::invalid_argument, "does not exist",
                 [&] { RankRun({}, 1, ranks).make(); });
  expect_error(ErrorCode::invalid_argument, "rank 0 of 2 has no reduction", [&] {
    RankRun({}, 1, DataParallel{0, 2, {}}).make();
  });
}

TEST(DataParallel, TheOthersFindWhatTheWriterLeaves) {
  const TemporaryFolder folder;
  TwoRanks ranks;
  bool found = false;
  as_two_ranks([&](std::size_t rank) {
    const DataParallel self{static_cast<std::int64_t>(rank), 2, ranks.reduction(rank)};
    self.writer_first(at::kCPU, [&] {
      if (self.writes()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        std::ofstream(folder / "made") << "whole";
      } else {
        found = std::filesystem::exists(folder / "made");
      }
    });
  });
  EXPECT_TRUE(found);
  bool done = false;
  DataParallel{}.writer_first(at::kCPU, [&] { done = true; });
  EXPECT_TRUE(done);

  // A reduction may know one device only: that of the parameters.
  std::vector<at::Device> met;
  const DataParallel other{
      1, 2, [&](std::vector<at::Tensor>& tensors) { met.push_back(tensors.at(0).device()); }};
  other.writer_first(at::kMeta, [] {});
  EXPECT_EQ(met, std::vector<at::Device>{at::kMeta});
}

TEST(DataParallel, OneRankThatStopsStopsAllAtOneStep) {
  const TemporaryFolder folder;
  TwoRanks ranks;
  std::array<std::int64_t, 2> done{};
  as_two_ranks([&](std::size_t rank) {
    const RankRun run(folder / "run", 1,
                      DataParallel{static_cast<std::int64_t>(rank), 2, ranks.reduction(rank)});
    Trainer trainer = run.make();
    EXPECT_FALSE(
        trainer.run([&](const StepResult& result) { return rank == 0 || result.step != 2; }));
    done[rank] = trainer.steps_done();
  });
  EXPECT_EQ(done, (std::array<std::int64_t, 2>{3, 3}));
  EXPECT_EQ(CheckpointFolder::load(*CheckpointFolder(folder / "run", 1).latest()).step, 3);
}

// The state before the step in which others did not come is whole.
TEST(DataParallel, LostRanksLeaveACheckpointOfTheLastStep) {
  const TemporaryFolder folder;
  for (const std::int64_t rank : {0, 1}) {
    int steps = 0;
    const auto gone_in_fourth = [&steps](std::vector<at::Tensor>& tensors) {
      if (tensors.size() > 1 && ++steps == 4)
        throw LostRanks(ErrorCode::io, "ranks", "no answer from rank 1", "look at it");
    };
    RankRun run(folder / std::to_string(rank), 1, DataParallel{rank, 2, gone_in_fourth});
    run.options.checkpoint_every = 0;
    expect_error(ErrorCode::io, rank == 0 ? "holds the run as it was after 3 steps" : "look at it",
                 [&] { run.make().run(); });
    const auto latest = CheckpointFolder(folder / std::to_string(rank), 1).latest();
    ASSERT_EQ(latest.has_value(), rank == 0);
    if (latest) {
      EXPECT_EQ(CheckpointFolder::load(*latest).step, 3);
    }
  }
}

TEST(DataParallel, RanksWithOtherSettingsAreRefusedByTheirNames) {
  const auto outcome = [](const Json& first, const Json& second) {
    TwoRanks ranks;
    std::array<std::string, 2> said;
    as_two_ranks([&](std::size_t rank) {
      try {
        DataParallel{static_cast<std::int64_t>(rank), 2, ranks.reduction(rank)}.check_same(
            rank == 0 ? first : second, at::kCPU);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::mismatch);
        said[rank] = error.what();
      }
    });
    EXPECT_EQ(said[0], said[1]);
    return said[0];
  };
  const Json settings = {{"seed", 5}, {"pictures", "a"}, {"steps done", 0}};
  Json other = settings;
  EXPECT_EQ(outcome(settings, settings), "");
  other["pictures"] = "b";
  other["steps done"] = 4;
  EXPECT_NE(outcome(settings, other).find("differ in: pictures; steps done"), std::string::npos);
  other["more"] = true;
  EXPECT_NE(outcome(settings, other).find("which settings there are"), std::string::npos);
  DataParallel{}.check_same(settings, at::kCPU);
}

}  // namespace
}  // namespace ringlet::train
