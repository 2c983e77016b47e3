#include "ringlet/train/metrics_file.h"

#include <bit>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/failpoint.h"
#include "ringlet/core/random.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

const std::string kHeader = "step,loss,learning_rate,gradient_norm,seconds,skipped\n";

MetricsRow row(std::int64_t step, double loss = 0.5) { return {step, loss, 1e-4, 1.25, 2.0, 0}; }

/// A file with the rows 1 to `steps`.
void write_rows(const fs::path& path, std::int64_t steps) {
  MetricsFile file(path);
  for (std::int64_t step = 1; step <= steps; ++step) file.add(row(step));
}

std::vector<std::int64_t> steps_of(const fs::path& path) {
  std::vector<std::int64_t> out;
  for (const MetricsRow& one : read_metrics(path)) out.push_back(one.step);
  return out;
}

TEST(MetricsFile, ARowIsOneLine) {
  const TemporaryFolder folder;
  MetricsFile file(folder / "metrics.csv");
  EXPECT_EQ(file_content(folder / "metrics.csv"), kHeader);
  file.add({1, 0.1, 1e-4, 12.5, 3.0, 2});
  EXPECT_EQ(file_content(folder / "metrics.csv"), kHeader + "1,0.1,1e-04,12.5,3,2\n");
}

TEST(MetricsFile, NumbersReadBackExactly) {
  const TemporaryFolder folder;
  MetricsFile file(folder / "metrics.csv");
  RandomStream random = Random(1).stream("numbers");
  std::vector<double> numbers{0.0,
                              -0.0,
                              1.0 / 3.0,
                              static_cast<double>(0.1f),
                              std::numeric_limits<double>::denorm_min(),
                              std::numeric_limits<double>::max(),
                              -std::numeric_limits<double>::infinity()};
  while (numbers.size() < 500) {
    const auto any = std::bit_cast<double>(random.next_u64());
    if (std::isfinite(any)) numbers.push_back(any);
  }
  for (const double value : numbers)
    file.add({std::numeric_limits<std::int64_t>::max(), value, value, value, value, 7});
  const auto rows = read_metrics(folder / "metrics.csv");
  ASSERT_EQ(rows.size(), numbers.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MetricsRow& one = rows[i];
    EXPECT_EQ(one.step, std::numeric_limits<std::int64_t>::max());
    EXPECT_EQ(one.skipped, 7);
    for (const double value : {one.loss, one.learning_rate, one.gradient_norm, one.seconds})
      EXPECT_EQ(std::bit_cast<std::uint64_t>(value), std::bit_cast<std::uint64_t>(numbers[i]));
  }
}

TEST(MetricsFile, NotANumberIsNan) {
  const TemporaryFolder folder;
  MetricsFile file(folder / "metrics.csv");
  file.add({1, std::nan(""), 0.0, -std::nan(""), 0.0, 1});
  EXPECT_EQ(file_content(folder / "metrics.csv"), kHeader + "1,nan,0,nan,0,1\n");
  EXPECT_TRUE(std::isnan(read_metrics(folder / "metrics.csv").at(0).loss));
}

TEST(MetricsFile, ANewRunReplacesAnOldFile) {
  const TemporaryFolder folder;
  write_rows(folder / "metrics.csv", 3);
  const MetricsFile file(folder / "metrics.csv");
  EXPECT_EQ(file_content(folder / "metrics.csv"), kHeader);
  EXPECT_EQ(entry_count(folder.path()), 1u);
}

TEST(MetricsFile, AResumedRunKeepsTheRowsUpToItsStep) {
  const TemporaryFolder folder;
  write_rows(folder / "metrics.csv", 5);
  MetricsFile file(folder / "metrics.csv", 3);
  EXPECT_EQ(steps_of(folder / "metrics.csv"), (std::vector<std::int64_t>{1, 2, 3}));
  file.add(row(4, 0.25));
  EXPECT_EQ(steps_of(folder / "metrics.csv"), (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(read_metrics(folder / "metrics.csv").back().loss, 0.25);
}

TEST(MetricsFile, AResumedRunWithoutAFileStartsOne) {
  const TemporaryFolder folder;
  MetricsFile file(folder / "metrics.csv", 3);
  file.add(row(4));
  EXPECT_EQ(steps_of(folder / "metrics.csv"), std::vector<std::int64_t>{4});
}

// A kill can leave any beginning of the last line.
TEST(MetricsFile, ATornLastLineIsIgnoredAndDropped) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.csv";
  write_rows(path, 3);
  const std::string whole = file_content(path);
  const std::size_t last_line = whole.rfind('\n', whole.size() - 2) + 1;
  for (std::size_t size = last_line; size < whole.size(); ++size) {
    SCOPED_TRACE(whole.substr(last_line, size - last_line));
    write_file_atomically(path, whole.substr(0, size));
    EXPECT_EQ(steps_of(path), (std::vector<std::int64_t>{1, 2}));
    MetricsFile(path, 3).add(row(3));
    EXPECT_EQ(file_content(path), whole);
  }
}

TEST(MetricsFile, WhatIsNoMetricsFileIsRefused) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.csv";
  expect_error(ErrorCode::not_found, "does not exist", [&] { read_metrics(path); });
  expect_error(ErrorCode::io, "not a regular file", [&] { read_metrics(folder.path()); });
  for (const std::string text : {"", "step,loss", "step,loss\n1,2\n"}) {
    write_file_atomically(path, text);
    expect_error(ErrorCode::bad_format, "header line", [&] { read_metrics(path); });
  }
  for (const std::string line : {"", "1", "1,2,3,4,5", "1,2,3,4,5,6,7", "1,2,3,4,5,x", "1,,3,4,5,6",
                                 "1.5,2,3,4,5,6", "1,2,3,4,5,6 ", "1,2e999,3,4,5,6"}) {
    write_file_atomically(path, kHeader + "1,2,3,4,5,6\n" + line + "\n2,2,3,4,5,6\n");
    expect_error(ErrorCode::bad_format, "line 3 is not a row", [&] { read_metrics(path); });
    // What cannot be read is not thrown away either.
    const std::string before = file_content(path);
    expect_error(ErrorCode::bad_format, "line 3", [&] { MetricsFile(path, 1); });
    EXPECT_EQ(file_content(path), before);
  }
}

TEST(MetricsFile, FailingCallsAreErrors) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.csv";
  write_rows(path, 2);
  const std::string before = file_content(path);
  arm_failpoint("atomic_file.rename", EIO);
  expect_error(ErrorCode::io, "rename", [&] { MetricsFile(path, 1); });
  EXPECT_EQ(file_content(path), before);
  MetricsFile file(path, 2);
  arm_failpoint("append_file.write", ENOSPC);
  expect_error(ErrorCode::no_space, "cannot write", [&] { file.add(row(3)); });
  arm_failpoint("", 0);
  file.add(row(3));
  EXPECT_EQ(steps_of(path), (std::vector<std::int64_t>{1, 2, 3}));
  expect_error(ErrorCode::not_found, "does not exist", [&] { MetricsFile(folder / "no" / "m"); });
}

}  // namespace
}  // namespace ringlet::train
