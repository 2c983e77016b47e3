// Pages that say which files to touch name files that exist.
#include <filesystem>
#include <regex>
#include <string>
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
  static const std::regex kPath("`([a-z_]+/[\\w./<>{},-]*)`");
  std::vector<std::string> paths;
  for (std::sregex_iterator found(text.begin(), text.end(), kPath), end; found != end; ++found)
    for (const std::string& path : expanded((*found)[1])) paths.push_back(fixed_part(path));
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
