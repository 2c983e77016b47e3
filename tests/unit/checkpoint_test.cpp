#include "ringlet/train/checkpoint.h"

#include <fstream>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "ringlet/io/tensor_file.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;
using golden::uniform;

TrainState state_of(std::int64_t step) {
  return {step,
          step - 2,
          2,
          {{"seed", 18446744073709551615u}, {"rate", 1e-4}, {"words", "caf\xC3\xA9"}},
          {{"exp_avg.a", uniform("e" + std::to_string(step), {2, 3})},
           {"parameter.a", uniform("p" + std::to_string(step), {2, 3}).to(at::kDouble)},
           {"parameter.b", at::ones({}, at::kBFloat16)}}};
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

class Checkpoints : public testing::Test {
 protected:
  fs::path path() const { return folder_ / "checkpoints"; }
  TemporaryFolder folder_;
};

TEST_F(Checkpoints, ReadBackAsTheyWere) {
  const CheckpointFolder folder(path(), 2);
  EXPECT_FALSE(folder.latest());
  const TrainState state = state_of(12);
  EXPECT_EQ(folder.save(state), path() / "step-00000012.safetensors");
  ASSERT_EQ(folder.latest(), path() / "step-00000012.safetensors");
  const TrainState read = CheckpointFolder::load(*folder.latest());
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.updates, 10);
  EXPECT_EQ(read.skipped, 2);
  EXPECT_EQ(read.settings.dump(), state.settings.dump());
  ASSERT_EQ(read.tensors.size(), state.tensors.size());
  for (const auto& [name, tensor] : state.tensors)
    EXPECT_TRUE(same_bits(read.tensors.at(name), tensor)) << name;
}

TEST_F(Checkpoints, OnlyTheLastFewStay) {
  const CheckpointFolder folder(path(), 3);
  for (const std::int64_t step : {8, 9, 10, 99, 100}) folder.save(state_of(step));
  EXPECT_EQ(names_in(path()),
            (std::set<std::string>{"step-00000010.safetensors", "step-00000010.sha256",
                                   "step-00000099.safetensors", "step-00000099.sha256",
                                   "step-00000100.safetensors", "step-00000100.sha256"}));
  EXPECT_EQ(CheckpointFolder::load(*folder.latest()).step, 100);
}

TEST_F(Checkpoints, AStepIsReplacedWhenItComesAgain) {
  const CheckpointFolder folder(path(), 2);
  folder.save(state_of(5));
  TrainState again = state_of(5);
  again.skipped = 1;
  folder.save(again);
  EXPECT_EQ(entry_count(path()), 2u);
  EXPECT_EQ(CheckpointFolder::load(*folder.latest()).skipped, 1);
}

// Somebody's copies, notes and folders are neither checkpoints nor removed.
TEST_F(Checkpoints, OtherFilesAreNotTaken) {
  const CheckpointFolder folder(path(), 1);
  folder.save(state_of(3));
  for (const char* name : {"step-best.safetensors", "step-00000009 copy.safetensors",
                           "step-.safetensors", "step-00000009.txt", "zzz.safetensors"})
    std::ofstream(path() / name) << "x";
  EXPECT_EQ(folder.latest(), path() / "step-00000003.safetensors");
  folder.save(state_of(4));
  EXPECT_EQ(entry_count(path()), 7u);
  EXPECT_EQ(folder.latest(), path() / "step-00000004.safetensors");
}

TEST_F(Checkpoints, ManyStepsKeepTheirOrder) {
  const CheckpointFolder folder(path(), 1);
  folder.save(state_of(99999999));
  folder.save(state_of(100000000));
  EXPECT_EQ(CheckpointFolder::load(*folder.latest()).step, 100000000);
}

// A kill inside a save leaves its temporary file, which can be large.
TEST_F(Checkpoints, WhatAKilledSaveLeftIsRemoved) {
  const CheckpointFolder folder(path(), 2);
  folder.save(state_of(1));
  std::ofstream(path() / ".step-00000002.safetensors.4242-0.tmp") << "half a checkpoint";
  EXPECT_EQ(folder.latest(), path() / "step-00000001.safetensors");
  folder.save(state_of(2));
  EXPECT_EQ(names_in(path()),
            (std::set<std::string>{"step-00000001.safetensors", "step-00000001.sha256",
                                   "step-00000002.safetensors", "step-00000002.sha256"}));
}

TEST_F(Checkpoints, NumbersThatAreNotFiniteAreRefused) {
  const CheckpointFolder folder(path(), 1);
  folder.save(state_of(1));
  const std::string before = file_content(*folder.latest());
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()})
    for (const char* name : {"exp_avg.a", "parameter.a"}) {
      TrainState state = state_of(2);
      state.tensors.at(name)[1][2] = bad;
      expect_error(ErrorCode::non_finite, name, [&] { folder.save(state); });
      EXPECT_EQ(entry_count(path()), 2u);
      EXPECT_EQ(file_content(*folder.latest()), before);
    }
}

TEST_F(Checkpoints, WhatIsNoneIsRefused) {
  expect_error(ErrorCode::not_found, "nope", [&] { CheckpointFolder::load(folder_ / "nope"); });
  const fs::path file = folder_ / "a.safetensors";
  std::ofstream(file) << "not a checkpoint";
  expect_error(ErrorCode::bad_format, "a.safetensors", [&] { CheckpointFolder::load(file); });
  io::save_tensors(file, {{"w", at::ones({2})}});
  expect_error(ErrorCode::unsupported, "not a training checkpoint",
               [&] { CheckpointFolder::load(file); });
}

TEST_F(Checkpoints, DamagedMetadataIsRefused) {
  const CheckpointFolder folder(path(), 1);
  const fs::path file = folder.save(state_of(3));
  const io::Metadata good = io::SafetensorsFile::open(file)->metadata();
  const auto expect_refused = [&](const std::string& key, const std::string& value, ErrorCode code,
                                  const char* words) {
    io::Metadata metadata = good;
    metadata[key] = value;
    if (value.empty()) metadata.erase(key);
    io::save_tensors(folder_ / "b.safetensors", {{"w", at::ones({2})}}, metadata);
    expect_error(code, words, [&] { CheckpointFolder::load(folder_ / "b.safetensors"); });
  };
  expect_refused("version", "2", ErrorCode::unsupported, "version 2");
  for (const char* key : {"step", "updates", "skipped"})
    for (const char* value : {"", "x", "-1", "99999999999999999999"})
      expect_refused(key, value, ErrorCode::bad_format, key);
  expect_refused("settings", "{", ErrorCode::bad_format, "b.safetensors");
  expect_refused("settings", "", ErrorCode::bad_format, "b.safetensors");
  expect_refused("settings", "[1]", ErrorCode::bad_format, "settings");
}

TEST_F(Checkpoints, ATruncatedFileIsRefused) {
  const fs::path file = CheckpointFolder(path(), 1).save(state_of(3));
  const auto size = fs::file_size(file);
  for (const auto left : {size - 1, size / 2, std::uintmax_t{9}, std::uintmax_t{0}}) {
    fs::resize_file(file, left);
    expect_error(ErrorCode::bad_format, "step-00000003", [&] { CheckpointFolder::load(file); });
  }
}

TEST(RestoreTensors, FillsThemInPlace) {
  const at::Tensor a = at::zeros({2}), b = at::zeros({2, 2});
  restore_tensors({{"a", a}, {"b", b}}, {{"a", uniform("a", {2})}, {"b", uniform("b", {2, 2})}},
                  "file");
  EXPECT_TRUE(at::equal(a, uniform("a", {2})));
  EXPECT_TRUE(at::equal(b, uniform("b", {2, 2})));
}

TEST(RestoreTensors, ChangesNothingWhenOneDoesNotFit) {
  const at::Tensor a = at::zeros({2}), b = at::zeros({2, 2});
  const auto expect_refused = [&](const std::map<std::string, at::Tensor>& loaded,
                                  const char* words) {
    expect_error(ErrorCode::mismatch, words, [&] {
      restore_tensors({{"a", a}, {"b", b}}, loaded, "file");
    });
    EXPECT_TRUE(at::equal(a, at::zeros({2})));
    EXPECT_TRUE(at::equal(b, at::zeros({2, 2})));
  };
  const at::Tensor one = at::ones({2}), four = at::ones({2, 2});
  expect_refused({{"a", one}}, "\"b\" is missing");
  expect_refused({{"a", one}, {"b", at::ones({4})}}, "\"b\" has another shape");
  expect_refused({{"a", one}, {"b", at::ones({2, 2}, at::kDouble)}}, "\"b\" has another type");
  expect_refused({{"a", one}, {"b", four}, {"c", one}}, "\"c\" does not belong here");
}

}  // namespace
}  // namespace ringlet::train
