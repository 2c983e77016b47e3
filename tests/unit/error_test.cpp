#include "ringlet/core/error.h"

#include <gtest/gtest.h>

namespace ringlet {
namespace {

TEST(Error, TextHoldsWhereWhatAndHint) {
  const Error error(ErrorCode::not_found, "model/unet", "the folder does not exist",
                    "check `model`");
  EXPECT_STREQ(error.what(), "model/unet: the folder does not exist\n  check `model`");
  EXPECT_EQ(error.code(), ErrorCode::not_found);
  EXPECT_EQ(exit_status(error.code()), 3);
  EXPECT_FALSE(error.at_field());
}

// A file may be called "steps", too: only the type tells an option from a thing.
TEST(Error, APlaceMayBeAField) {
  const Error error(ErrorCode::invalid_argument, Field("request.width"), "must be above 0",
                    "use `width=64`");
  EXPECT_TRUE(error.at_field());
  EXPECT_EQ(error.where(), "request.width");
  EXPECT_STREQ(error.what(), "request.width: must be above 0\n  use `width=64`");
}

TEST(Error, EveryCodeHasANameAndANonZeroExitStatus) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
    EXPECT_FALSE(to_string(static_cast<ErrorCode>(code)).empty());
    EXPECT_NE(exit_status(static_cast<ErrorCode>(code)), 0);
  }
}

// Names from files end up in terminals: a NUL would end the text, an escape could rewrite the
// screen.
TEST(Error, ControlCharactersAreShownAsCodes) {
  const Error error(ErrorCode::bad_format, "file", std::string("name \"a\0b\x1b[31m\x7f\r\"", 17),
                    "é\nhint");
  EXPECT_STREQ(error.what(), "file: name \"a\\x00b\\x1b[31m\\x7f\\x0d\"\n  é\nhint");
  EXPECT_EQ(error.message().size(), 17u);  // as it was, for programs
}

}  // namespace
}  // namespace ringlet
