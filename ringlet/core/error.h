// The one exception type that leaves the library.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace ringlet {

/// What kind of failure happened. The command line maps each code to an exit status, so the
/// meaning of a code never changes.
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

/// Short, stable, lower-case name ("not_found"), for output that programs read.
std::string_view to_string(ErrorCode code);

/// Exit status of the command line for an error of this kind (docs/troubleshooting.md lists them).
int exit_status(ErrorCode code);

/// The name of an option where an error lies: a field of an options struct ("steps"), or a path of
/// fields ("request.width"). The library knows no command line: a program that has one turns the
/// name into its own spelling ("--steps").
struct Field {
  explicit Field(std::string field_path) : path(std::move(field_path)) {}
  std::string path;
};

/// An error with its place and its fix.
///
///   where  the thing at fault: an option (Field), a file, a dotted tensor name
///   what   what is wrong with it, in one sentence
///   hint   what to do about it; may be empty
///
/// Messages, hints and log lines name options between back quotes, with the value where one is
/// meant: "give `init_image`", "use `precision=fp32`". A reader of C++ sees the field; a program
/// turns the marked words into its own spelling, as the command line does ("--precision fp32").
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string where, std::string message, std::string hint = {});
  Error(ErrorCode code, Field where, std::string message, std::string hint = {});

  const char* what() const noexcept override { return text_.c_str(); }
  ErrorCode code() const noexcept { return code_; }
  const std::string& where() const noexcept { return where_; }
  /// Whether where() is the name of an option, not of a file, tensor or other thing.
  bool at_field() const noexcept { return at_field_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  ErrorCode code_;
  std::string where_;
  std::string message_;
  std::string hint_;
  bool at_field_ = false;
  std::string text_;  // "where: message\n  hint", control characters as \xNN, built once
};

}  // namespace ringlet
