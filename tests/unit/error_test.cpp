#include "ringlet/core/error.h"

#include <gtest/gtest.h>

namespace ringlet {
namespace {

TEST(Error, TextHoldsWhereWhatAndHint) {
  const Error error(ErrorCode::not_found, "model/unet", "the folder does not exist",
                    "check --model");
  EXPECT_STREQ(error.what(), "model/unet: the folder does not exist\n  check --model");
  EXPECT_EQ(error.code(), ErrorCode::not_found);
  EXPECT_EQ(exit_status(error.code()), 3);
}

TEST(Error, EveryCodeHasANameAndANonZeroExitStatus) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
    EXPECT_FALSE(to_string(static_cast<ErrorCode>(code)).empty());
    EXPECT_NE(exit_status(static_cast<ErrorCode>(code)), 0);
  }
}

}  // namespace
}  // namespace ringlet
