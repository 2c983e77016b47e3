#include "ringlet/core/error.h"

#include <utility>

#include "ringlet/core/text.h"

namespace ringlet {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::bad_format:
      return "bad_format";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::mismatch:
      return "mismatch";
    case ErrorCode::io:
      return "io";
    case ErrorCode::no_space:
      return "no_space";
    case ErrorCode::out_of_memory:
      return "out_of_memory";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::non_finite:
      return "non_finite";
    case ErrorCode::internal:
      return "internal";
  }
  return "internal";
}

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return 2;
    case ErrorCode::not_found:
      return 3;
    case ErrorCode::bad_format:
      return 4;
    case ErrorCode::unsupported:
      return 5;
    case ErrorCode::mismatch:
      return 6;
    case ErrorCode::io:
      return 7;
    case ErrorCode::no_space:
      return 8;
    case ErrorCode::out_of_memory:
      return 9;
    case ErrorCode::non_finite:
      return 10;
    case ErrorCode::internal:
      return 70;
    case ErrorCode::cancelled:
      return 130;
  }
  return 70;
}

Error::Error(ErrorCode code, std::string where, std::string message, std::string hint)
    : code_(code),
      where_(std::move(where)),
      message_(std::move(message)),
      hint_(std::move(hint)),
      text_(printable(where_.empty() ? message_ : where_ + ": " + message_)) {
  if (!hint_.empty()) text_ += "\n  " + printable(hint_, /*keep_line_breaks=*/true);
}

Error::Error(ErrorCode code, Field where, std::string message, std::string hint)
    : Error(code, std::move(where.path), std::move(message), std::move(hint)) {
  at_field_ = true;
}

}  // namespace ringlet
