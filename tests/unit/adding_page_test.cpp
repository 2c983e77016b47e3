// Pages that say which files to touch name files that exist.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/core/read_file.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;
const fs::path kRoot = RINGLET_SOURCE_DIR;

/// "a/b.{h,cpp}" -> "a/b.h", "a/b.cpp".
std::vector<std::string> expanded(const std::string& path) {
  const std::size_t open = path.find(".{h,cpp}");
  if (open == std::string::npos) return {path};
  return {path.substr(0, open) + ".h", path.substr(0, open) + ".cpp"};
}

/// What is fixed in a path: all of it, or the folder before the first name to be chosen ("<name>").
std::string fixed_part(const std::string& path) {
  const std::size_t chosen = path.find('<');
  return chosen == std::string::npos ? path : path.substr(0, path.rfind('/', chosen));
}

/// Everything between back quotes that reads like a path, without names to be chosen.
std::vector<std::string> paths_in(const std::string& page) {
  const std::string text = read_file(kRoot / "docs" / page);
  constexpr std::string_view kInPaths =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./<>{},-";
  std::vector<std::string> paths;
  std::size_t open = text.find('`');
  while (open != std::string::npos) {
    const std::size_t close = text.find('`', open + 1);
    if (close == std::string::npos) break;
    const std::string inside = text.substr(open + 1, close - open - 1);
    const std::size_t slash = inside.find('/');
    if (slash != std::string::npos && slash > 0 &&
        inside.find_first_not_of(kInPaths) == std::string::npos)
      for (const std::string& path : expanded(inside)) paths.push_back(fixed_part(path));
    open = text.find('`', close + 1);
  }
  return paths;
}

bool exists(const std::string& path) {
  return fs::exists(kRoot / path) || fs::exists(kRoot / "ringlet" / path);
}

TEST(AddingPage, NamesFilesThatExist) {
  const std::vector<std::string> paths = paths_in("adding.md");
  EXPECT_GT(paths.size(), 40u);
  for (const std::string& path : paths) EXPECT_TRUE(fs::exists(kRoot / path)) << path;
}

TEST(ArchitecturePage, NamesFilesThatExist) {
  const std::vector<std::string> paths = paths_in("architecture.md");
  EXPECT_GT(paths.size(), 40u);
  for (const std::string& path : paths) EXPECT_TRUE(exists(path)) << path;
}

// Every layer has its line in the picture of folders.
TEST(ArchitecturePage, ShowsEveryFolder) {
  const std::string page = read_file(kRoot / "docs/architecture.md");
  for (const auto& entry : fs::directory_iterator(kRoot / "ringlet")) {
    if (!entry.is_directory()) continue;
    const std::string line = "\n    " + entry.path().filename().string() + "/ ";
    EXPECT_NE(page.find(line), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace ringlet
