// Text files that people write, with their editors' habits.
#include <sstream>

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/read_file.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

const std::string kMark = "\xEF\xBB\xBF";

TEST(TextFile, AByteOrderMarkAndCarriageReturnsAreNoText) {
  const TemporaryFolder folder;
  const auto path = folder / "t.txt";
  write_file_atomically(path, kMark + "a cat\r\n\r\na dog");
  EXPECT_EQ(read_text_file(path), "a cat\r\n\r\na dog");
  EXPECT_EQ(read_text_lines(path), (std::vector<std::string>{"a cat", "", "a dog"}));
  write_file_atomically(path, kMark);
  EXPECT_TRUE(read_text_lines(path).empty());
  write_file_atomically(path, "a " + kMark + "cat");  // elsewhere it is a character
  EXPECT_EQ(read_text_file(path), "a " + kMark + "cat");
}

TEST(TextFile, Utf16IsReadAndOtherEncodingsAreNamed) {
  const TemporaryFolder folder;
  using namespace std::literals;
  for (const std::string& bytes : {"\xFF\xFE"
                                   "a\0\xE9\0"s,
                                   "\xFE\xFF\0a\0\xE9"s}) {
    write_file_atomically(folder / "t.txt", bytes);
    EXPECT_EQ(read_text_file(folder / "t.txt"), "a\xC3\xA9");
  }
  write_file_atomically(folder / "t.txt",
                        "\xFF\xFE"
                        "a");
  expect_error(ErrorCode::bad_format, "UTF-16", [&] { read_text_file(folder / "t.txt"); });
  write_file_atomically(folder / "t.txt", "caf\xE9");
  expect_error(ErrorCode::bad_format, "Latin-1", [&] { read_text_file(folder / "t.txt"); });
}

TEST(TextFile, StreamsMovePastTheMarkOnly) {
  for (const std::string text : {"model = 1", "m", ""}) {
    for (const std::string& mark : {kMark, std::string()}) {
      std::istringstream stream(mark + text);
      skip_byte_order_mark(stream);
      std::string rest;
      std::getline(stream, rest);
      EXPECT_EQ(rest, text);
    }
  }
}

}  // namespace
}  // namespace ringlet
