#include "ringlet/core/path_guard.h"

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;
using namespace std::literals;

class PathGuard : public testing::Test {
 protected:
  PathGuard() {
    fs::create_directories(folder_ / "root/inner");
    write_file_atomically(folder_ / "secret", "outside");
    write_file_atomically(root() / "shard.safetensors", "inside");
    write_file_atomically(root() / "inner/file", "deeper");
  }
  fs::path root() const { return folder_ / "root"; }

  TemporaryFolder folder_;
};

TEST_F(PathGuard, PlainNamesResolveUnderTheRoot) {
  EXPECT_EQ(resolve_under(root(), "shard.safetensors"), root() / "shard.safetensors");
  for (const std::string& name : {std::string("..."), std::string("..x"), std::string("a b"),
                                  std::string("-rf"), std::string("日本"), std::string("%2e%2e"),
                                  std::string("C:shard"), std::string("caf\xe9")}) {
    write_file_atomically(root() / name, "x");
    EXPECT_EQ(resolve_under(root(), name), root() / name);
  }
}

// The names of attack lists against servers and archive readers.
TEST_F(PathGuard, NamesThatCouldLeaveTheFolderAreRefused) {
  const std::vector<std::string> names = {"",
                                          ".",
                                          "..",
                                          "/",
                                          "//",
                                          "../secret",
                                          "..\\secret",
                                          "/etc/passwd",
                                          "//server/share",
                                          "\\\\server\\share",
                                          "C:\\secret",
                                          "inner/file",
                                          "inner\\file",
                                          "inner/",
                                          "./secret",
                                          "./shard.safetensors",
                                          "inner/../../secret",
                                          "....//secret",
                                          "..;/secret",
                                          "../../../../etc",
                                          "shard.safetensors/",
                                          "shard.safetensors\0"s,
                                          "shard\0.safetensors"s,
                                          "\0"s,
                                          "..\0"s,
                                          "..\0/secret"s,
                                          "a\nb",
                                          "a\rb",
                                          "\t",
                                          "\x01",
                                          "\x1b[31mred",
                                          "a\x7f",
                                          "%2e%2e/secret",
                                          "~/secret",
                                          "/proc/self/environ",
                                          "..\xc0\xaf../secret",
                                          "file:///etc/passwd"};
  ASSERT_GE(names.size(), 25u);
  for (const std::string& name : names) {
    SCOPED_TRACE(testing::PrintToString(name));
    expect_error(ErrorCode::bad_format, "is not a plain name",
                 [&] { resolve_under(root(), name); });
  }
}

TEST_F(PathGuard, MissingFilesAreNotFound) {
  for (const std::string& name : {"other"s, std::string(10000, 'a'), "%2e%2e%2fsecret"s})
    expect_error(ErrorCode::not_found, "does not exist", [&] { resolve_under(root(), name); });
  fs::create_symlink("gone", root() / "dangling");
  expect_error(ErrorCode::not_found, "does not exist", [&] { resolve_under(root(), "dangling"); });
  fs::create_symlink("loop", root() / "loop");
  expect_error(ErrorCode::not_found, "does not exist", [&] { resolve_under(root(), "loop"); });
}

// Hugging Face's cache stores every file as a link to ../../blobs/….
TEST_F(PathGuard, LinksThatTheUserPlacedAreFollowed) {
  fs::create_symlink("../secret", root() / "link.safetensors");
  EXPECT_EQ(resolve_under(root(), "link.safetensors"), root() / "link.safetensors");
}

}  // namespace
}  // namespace ringlet
