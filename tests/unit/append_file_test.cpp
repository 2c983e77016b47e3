#include "ringlet/core/append_file.h"

#include <cerrno>
#include <fstream>
#include <utility>

#include <gtest/gtest.h>

#include "ringlet/core/failpoint.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

TEST(AppendFile, GrowsAtItsEnd) {
  const TemporaryFolder folder;
  const auto path = folder / "a";
  {
    auto file = AppendFile::create(path);
    ASSERT_TRUE(file);
    EXPECT_EQ(file->path(), path);
    file->append("one\n");
    EXPECT_EQ(file_content(path), "one\n");  // without a flush
    AppendFile moved = std::move(*file);
    moved.append("");
    moved.append("two\n");
  }
  AppendFile(path).append("three\n");
  EXPECT_EQ(file_content(path), "one\ntwo\nthree\n");
}

TEST(AppendFile, ANameThatIsTakenIsLeftAlone) {
  const TemporaryFolder folder;
  std::ofstream(folder / "a") << "mine";
  EXPECT_FALSE(AppendFile::create(folder / "a"));
  EXPECT_EQ(file_content(folder / "a"), "mine");
}

TEST(AppendFile, WhatIsNotThereIsAnError) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::not_found, "cannot open", [&] { AppendFile(folder / "a"); });
  expect_error(ErrorCode::not_found, "cannot create", [&] { AppendFile::create(folder / "no/a"); });
  expect_error(ErrorCode::io, "cannot open", [&] { AppendFile(folder.path()); });
}

TEST(AppendFile, FailingCallsAreErrorsAndLeaveTheFile) {
  const TemporaryFolder folder;
  auto file = AppendFile::create(folder / "a");
  ASSERT_TRUE(file);
  file->append("one");
  arm_failpoint("append_file.write", ENOSPC);
  expect_error(ErrorCode::no_space, "free some space", [&] { file->append("two"); });
  arm_failpoint("append_file.fsync", EIO);
  expect_error(ErrorCode::io, "cannot flush", [&] { file->flush(); });
  arm_failpoint("append_file.write", EINTR);
  file->append("three");
  arm_failpoint("", 0);
  file->flush();
  EXPECT_EQ(file_content(folder / "a"), "onethree");
}

}  // namespace
}  // namespace ringlet
