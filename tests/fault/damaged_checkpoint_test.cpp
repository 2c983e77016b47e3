// A checkpoint that is not what was written any more: the one before is taken, and says so.
#include <fstream>

#include <gtest/gtest.h>

#include "ringlet/core/random.h"
#include "ringlet/core/sha256.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/train/checkpoint.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

TrainState damage_state(std::int64_t step) {
  return {step,
          step,
          0,
          {{"seed", 7}},
          {{"parameter.a", golden::uniform("p" + std::to_string(step), {40})},
           {"exp_avg.a", golden::uniform("e" + std::to_string(step), {40})}}};
}

void write_plainly(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

class DamagedCheckpoint : public testing::Test {
 protected:
  DamagedCheckpoint() {
    for (const std::int64_t step : {4, 6}) folder().save(damage_state(step));
  }
  CheckpointFolder folder(int keep = 2) const { return {folder_ / "checkpoints", keep}; }
  fs::path file(const std::string& name) const { return folder_ / "checkpoints" / name; }

  /// The checkpoint of step 4 is taken in place of that of step 6, and the log names both.
  void expect_fallback() const {
    const LogCapture log;
    EXPECT_EQ(folder().latest(), file("step-00000004.safetensors"));
    const std::string warnings = log.warnings();
    EXPECT_NE(warnings.find("step-00000006.safetensors"), std::string::npos) << warnings;
    EXPECT_NE(warnings.find("step-00000004.safetensors"), std::string::npos) << warnings;
  }

  TemporaryFolder folder_;
};

// Every file of a checkpoint, at 64 places and at both ends: one flipped bit, or cut there.
TEST_F(DamagedCheckpoint, AnyFlippedOrCutByteIsNoticed) {
  constexpr int kPlaces = 64;
  for (const char* name : {"step-00000006.safetensors", "step-00000006.sha256"}) {
    const std::string good = file_content(file(name));
    RandomStream random = Random(5).stream(name);
    std::vector<std::size_t> places = {0, 7, 8, good.size() / 2, good.size() - 1};
    while (places.size() < kPlaces) places.push_back(random.uniform_int(good.size()));
    for (const std::size_t place : places) {
      SCOPED_TRACE(std::string(name) + " at " + std::to_string(place));
      std::string flipped = good;
      flipped[place] = static_cast<char>(flipped[place] ^ (1 << random.uniform_int(8)));
      write_plainly(file(name), flipped);
      expect_fallback();
      write_plainly(file(name), good.substr(0, place));
      expect_fallback();
    }
    write_plainly(file(name), good + "x");
    expect_fallback();
    write_plainly(file(name), good);
    const LogCapture log;
    EXPECT_EQ(folder().latest(), file("step-00000006.safetensors"));
    EXPECT_EQ(log.warnings(), "");
  }
}

TEST_F(DamagedCheckpoint, AMissingOrForeignFileIsNoticed) {
  const fs::path hash = file("step-00000006.sha256"), data = file("step-00000006.safetensors");
  const std::string good = file_content(hash);
  fs::remove(hash);
  expect_fallback();
  write_plainly(hash, file_content(file("step-00000004.sha256")));
  expect_fallback();
  fs::remove(hash);
  fs::create_directory(hash);
  expect_fallback();
  fs::remove(hash);
  write_plainly(hash, good);
  fs::remove(data);
  EXPECT_EQ(folder().latest(), file("step-00000004.safetensors"));
  fs::create_directory(data);
  expect_fallback();
}

TEST_F(DamagedCheckpoint, WithoutAWholeOneTheRunIsRefused) {
  for (const char* name : {"step-00000004.safetensors", "step-00000006.safetensors"})
    write_plainly(file(name), "x");
  expect_error(ErrorCode::bad_format, "none of the checkpoints is whole",
               [&] { static_cast<void>(folder().latest()); });
}

// sha256sum -c step-00000006.sha256 says the same.
TEST_F(DamagedCheckpoint, TheHashIsInSha256sumsFormat) {
  EXPECT_EQ(file_content(file("step-00000006.sha256")),
            sha256_file(file("step-00000006.safetensors")) + "  step-00000006.safetensors\n");
}

// Those of earlier versions have no hash; a broken header is noticed all the same.
TEST_F(DamagedCheckpoint, CheckpointsWithoutAHashAreOfEarlierVersions) {
  const TrainState state = damage_state(8);
  io::save_tensors(file("step-00000008.safetensors"), state.tensors,
                   {{"format", "ringlet.train_state"},
                    {"version", "1"},
                    {"step", "8"},
                    {"updates", "8"},
                    {"skipped", "0"},
                    {"settings", "{}"}});
  EXPECT_EQ(folder().latest(), file("step-00000008.safetensors"));
  write_plainly(file("step-00000008.safetensors"), "x");
  EXPECT_EQ(folder().latest(), file("step-00000006.safetensors"));
}

// The damaged one would be the newest again.
TEST_F(DamagedCheckpoint, TheNextSaveRemovesWhatTheRunHasGoneBackBeyond) {
  write_plainly(file("step-00000006.safetensors"), "x");
  folder().save(damage_state(5));
  EXPECT_EQ(entry_count(folder_ / "checkpoints"), 4u);
  EXPECT_EQ(folder().latest(), file("step-00000005.safetensors"));
  folder(1).save(damage_state(7));
  EXPECT_EQ(entry_count(folder_ / "checkpoints"), 2u);
}

class DamagedRun : public FineTuning {};

TEST_F(DamagedRun, TheRunGoesBackAndMakesWhatItWouldHaveMade) {
  FineTuneOptions whole = options("whole/run"), parts = options("parts/run");
  whole.trainer.steps = parts.trainer.steps = 5;
  whole.trainer.checkpoint_every = parts.trainer.checkpoint_every = 1;
  EXPECT_TRUE(run(whole));
  EXPECT_FALSE(run(parts, 4));
  const fs::path newest = parts.out / "checkpoints/step-00000004.safetensors";
  std::string damaged = file_content(newest);
  damaged[damaged.size() - 3] ^= 1;
  write_plainly(newest, damaged);
  parts.resume = true;
  const LogCapture log;
  FineTune again(parts);
  EXPECT_EQ(again.plan().first_step, 3);
  EXPECT_TRUE(again.run({}));
  EXPECT_NE(log.warnings().find("is damaged"), std::string::npos) << log.warnings();
  expect_same_metrics(parts, whole);
  EXPECT_EQ(file_content(parts.out / "adapter.safetensors"),
            file_content(whole.out / "adapter.safetensors"));
}

}  // namespace
}  // namespace ringlet::train
