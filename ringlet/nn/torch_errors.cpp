#include "ringlet/nn/torch_errors.h"

#include <array>
#include <filesystem>
#include <string_view>

namespace ringlet::nn {

namespace {

/// `Where` is a Field or a string.
template <class Where>
Error converted(const std::exception& problem, const Where& where) {
  const std::string text = problem.what();
  static constexpr std::array kMemoryWords = {"can't allocate memory", "out of memory",
                                              "std::bad_alloc"};
  for (const std::string_view words : kMemoryWords)
    if (text.find(words) != std::string::npos)
      return {ErrorCode::out_of_memory, where, "there is not enough memory",
              "make fewer or smaller images at a time, or use `low_memory`"};
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&problem))
    return {ErrorCode::io, file->path1().string(), file->code().message()};
  const std::string first_line = text.substr(0, text.find('\n'));
  return {ErrorCode::internal, where, first_line,
          "this is a defect of ringlet; please report it with the command that you ran"};
}

}  // namespace

Error to_error(const std::exception& problem, const std::string& where) {
  return converted(problem, where);
}

Error to_error(const std::exception& problem, const Field& where) {
  return converted(problem, where);
}

}  // namespace ringlet::nn
