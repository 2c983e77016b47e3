// The one exception type that leaves the library.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace ringlet {

/// What kind of failure happened. The command line maps each code to an exit status, the server to
/// an HTTP status; the numbers are therefore part of the interface and never change.
enum class ErrorCode {
  invalid_argument,  ///< an option or parameter has a value that cannot be used
  not_found,         ///< a file, folder, tensor or name does not exist
  bad_format,        ///< a file's content breaks its format
  unsupported,       ///< well-formed, but not something ringlet can use
  mismatch,          ///< two inputs do not fit together (adapter and model, shapes, hashes)
  io,                ///< the operating system refused to read or write
  no_space,          ///< the disk is full, or would be
  out_of_memory,     ///< an allocation failed
  cancelled,         ///< the caller asked to stop
  non_finite,        ///< a NaN or infinity where only finite numbers are allowed
  internal,          ///< a defect in ringlet itself
};

/// Short, stable, lower-case name ("not_found"), used in `--json` output.
std::string_view to_string(ErrorCode code);

/// Exit status of the command line for an error of this kind (documented in README.md).
int exit_status(ErrorCode code);

/// An error with its place and its mend.
///
///   where  the thing at fault as the user knows it: a file, an option, a dotted tensor name
///   what   what is wrong with it, in one sentence
///   hint   what to do about it; may be empty
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string where, std::string message, std::string hint = {});

  const char* what() const noexcept override { return text_.c_str(); }
  ErrorCode code() const noexcept { return code_; }
  const std::string& where() const noexcept { return where_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  ErrorCode code_;
  std::string where_;
  std::string message_;
  std::string hint_;
  std::string text_;  // "where: message\n  hint", control characters as \xNN, built once
};

}  // namespace ringlet
