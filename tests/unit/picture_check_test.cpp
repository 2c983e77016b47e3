#include "ringlet/data/picture_check.h"

#include <atomic>
#include <fstream>

#include <gtest/gtest.h>

#include "ringlet/core/sha256.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

class PictureCheck : public testing::Test {
 protected:
  PictureCheck() {
    train::write_pictures(folder_.path(), 9);
    for (char name = 'a'; name < 'a' + 9; ++name)
      files_.push_back(folder_ / (std::string(1, name) + ".png"));
  }
  TemporaryFolder folder_;
  std::vector<fs::path> files_;
};

TEST_F(PictureCheck, GivesTheHashesInOrderWhateverTheThreads) {
  std::vector<std::string> expected;
  for (const fs::path& file : files_) expected.push_back(sha256_file(file));
  for (const int threads : {0, 1, 4, 50}) {
    std::size_t calls = 0;
    EXPECT_EQ(check_pictures(files_, "pictures",
                             {.threads = threads,
                              .progress =
                                  [&](std::size_t done, std::size_t total) {
                                    EXPECT_EQ(done, ++calls);
                                    EXPECT_EQ(total, 9u);
                                    return true;
                                  }}),
              expected);
    EXPECT_EQ(calls, 9u);
  }
  EXPECT_TRUE(check_pictures({}, "pictures", {}).empty());
}

TEST_F(PictureCheck, NamesAllThatAreDamaged) {
  fs::resize_file(files_[1], 100);
  expect_error(ErrorCode::bad_format, "b.png: the image is truncated",
               [&] { check_pictures(files_, "pictures", {.threads = 3}); });
  std::ofstream(files_[4]) << "no picture";
  fs::remove(files_[8]);
  for (const char* words :
       {"pictures: 3 of 9 pictures cannot be used", "b.png: the image is truncated",
        "e.png: this is not a PNG", "i.png: the image does not exist"})
    expect_error(ErrorCode::bad_format, words,
                 [&] { check_pictures(files_, "pictures", {.threads = 3}); });
}

TEST_F(PictureCheck, MoreMayBeAskedOfEach) {
  std::atomic<int> wide = 0;
  check_pictures(files_, "pictures",
                 {.threads = 2, .also = [&](std::size_t number, const io::Image& image) {
                    EXPECT_EQ(image.width, number % 3 == 1 ? 48 : 32);
                    wide += image.width == 48;
                  }});
  EXPECT_EQ(wide, 3);
  expect_error(ErrorCode::mismatch, "2 of 9", [&] {
    check_pictures(files_, "pictures", {.also = [](std::size_t number, const io::Image&) {
                     if (number % 5 == 2) throw Error(ErrorCode::mismatch, "map", "too small");
                   }});
  });
}

TEST_F(PictureCheck, CanBeStopped) {
  for (const int threads : {1, 3})
    expect_error(ErrorCode::cancelled, "stopped", [&] {
      check_pictures(files_, "pictures",
                     {.threads = threads, .progress = [](auto done, auto) { return done < 3; }});
    });
}

}  // namespace
}  // namespace ringlet::data
