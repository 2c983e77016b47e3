// Asserts an Error's kind and words.
#pragma once

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "ringlet/core/error.h"

namespace ringlet {

/// Runs `action` and expects an Error of this kind whose text contains `words`.
template <class Action>
void expect_error(ErrorCode code, std::string_view words, const Action& action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected \"" << words << "\"";
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
  }
}

}  // namespace ringlet
