#include "ringlet/core/atomic_file.h"

#include <barrier>
#include <fstream>
#include <limits>
#include <thread>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;

mode_t mode(const fs::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

/// Sets the umask for one test.
class Umask {
 public:
  explicit Umask(mode_t mask) : before_(::umask(mask)) {}
  ~Umask() { ::umask(before_); }
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;

 private:
  mode_t before_;
};

TEST(AtomicFile, TheTargetAppearsOnlyWithCommit) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "a.bin");
  file.write("new ");
  file.write(std::string_view("\0content", 8));
  EXPECT_FALSE(fs::exists(folder / "a.bin"));
  file.commit();
  EXPECT_EQ(file_content(folder / "a.bin"), std::string("new \0content", 12));
  EXPECT_EQ(entry_count(folder.path()), 1u);
}

TEST(AtomicFile, WithoutCommitNothingChanges) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("half of the new");
    EXPECT_EQ(file_content(folder / "a"), "old");
  }
  EXPECT_EQ(file_content(folder / "a"), "old");
  EXPECT_EQ(entry_count(folder.path()), 1u);  // no temporary file is left
}

// Temporary files are often made with mode 0600, which then sticks: other users and web servers
// could not read the result.
TEST(AtomicFile, NewFilesFollowTheUmask) {
  const TemporaryFolder folder;
  for (const auto& [mask, want] :
       {std::pair<mode_t, mode_t>{022, 0644}, {077, 0600}, {002, 0664}}) {
    const Umask umask(mask);
    const fs::path path = folder / ("file" + std::to_string(mask));
    write_file_atomically(path, "x");
    EXPECT_EQ(mode(path), want);
  }
}

TEST(AtomicFile, ReplacedFilesKeepTheirMode) {
  const TemporaryFolder folder;
  for (const mode_t wanted : {0600, 0640, 0666, 0755}) {
    write_file_atomically(folder / "a", "old");
    ASSERT_EQ(::chmod((folder / "a").c_str(), wanted), 0);
    const Umask umask(077);
    write_file_atomically(folder / "a", "new");
    EXPECT_EQ(mode(folder / "a"), wanted);
  }
}

// Download caches and users' folders are full of links: the link stays, its file is replaced.
TEST(AtomicFile, LinksAreFollowed) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "store");
  write_file_atomically(folder / "store" / "real", "old");
  fs::create_symlink("store/real", folder / "link");             // relative
  fs::create_symlink(folder / "link", folder / "link of link");  // absolute
  write_file_atomically(folder / "link of link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_TRUE(fs::is_symlink(folder / "link of link"));
  EXPECT_EQ(file_content(folder / "store" / "real"), "new");
  EXPECT_EQ(entry_count(folder / "store"), 1u);
}

TEST(AtomicFile, ADanglingLinkIsFilled) {
  const TemporaryFolder folder;
  fs::create_symlink("later", folder / "link");
  write_file_atomically(folder / "link", "new");
  EXPECT_EQ(file_content(folder / "later"), "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
}

TEST(AtomicFile, NamesWhatCannotBeWritten) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::not_found, "nowhere", [&] { AtomicFile(folder / "nowhere/a"); });
  expect_error(ErrorCode::io, "is a folder", [&] { AtomicFile(folder.path()); });
  write_file_atomically(folder / "file", "x");
  expect_error(ErrorCode::not_found, "the folder does not exist",
               [&] { AtomicFile(folder / "file/a"); });
  expect_error(ErrorCode::io, "cannot create", [&] { AtomicFile(folder / std::string(300, 'a')); });
  EXPECT_EQ(entry_count(folder.path()), 1u);
}

// Before hours of work, not after: the space is checked first.
TEST(AtomicFile, ChecksTheFreeSpaceFirst) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", "old");
  expect_error(ErrorCode::no_space, "free, but the file needs",
               [&] { AtomicFile(folder / "a", std::numeric_limits<std::uint64_t>::max() / 2); });
  EXPECT_EQ(file_content(folder / "a"), "old");
  EXPECT_EQ(entry_count(folder.path()), 1u);
}

TEST(AtomicFile, LargeWritesArrive) {
  const TemporaryFolder folder;
  std::string large(5 << 20, '\0');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 >> 3);
  write_file_atomically(folder / "a", large);
  EXPECT_EQ(file_content(folder / "a"), large);
}

// Two threads of a server may save the same name: one of the two wins, whole.
TEST(AtomicFile, WritersOfOneTargetDoNotMix) {
  const TemporaryFolder folder;
  for (int round = 0; round < 20; ++round) {
    constexpr int kThreads = 4;
    std::barrier together(kThreads);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        AtomicFile file(folder / "a");
        together.arrive_and_wait();
        for (int piece = 0; piece < 50; ++piece)
          file.write(std::string(100, static_cast<char>('a' + t)));
        together.arrive_and_wait();
        EXPECT_NO_THROW(file.commit());
      });
    for (std::thread& thread : threads) thread.join();
    const std::string result = file_content(folder / "a");
    EXPECT_EQ(result, std::string(5000, result.empty() ? 'a' : result[0]));
    EXPECT_EQ(entry_count(folder.path()), 1u);
  }
}

TEST(AtomicFile, ARelativeTargetIsWrittenToTheCurrentFolder) {
  const TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  EXPECT_NO_THROW(write_file_atomically("plain-name", "x"));
  fs::current_path(before);
  EXPECT_EQ(file_content(folder / "plain-name"), "x");
}

}  // namespace
}  // namespace ringlet
