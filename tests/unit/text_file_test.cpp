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

TEST(TextFile, Utf16IsNamed) {
  const TemporaryFolder folder;
  for (const std::string mark : {"\xFF\xFE", "\xFE\xFF"}) {
    write_file_atomically(folder / "t.txt", mark + "a");
    expect_error(ErrorCode::bad_format, "UTF-16", [&] { read_text_file(folder / "t.txt"); });
  }
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
