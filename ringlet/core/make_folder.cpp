#include "ringlet/core/make_folder.h"

#include <system_error>

#include "ringlet/core/error.h"

namespace ringlet {

void make_folder(const std::filesystem::path& folder) {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem)
    throw Error(ErrorCode::io, folder.string(), "the folder cannot be made: " + problem.message());
}

}  // namespace ringlet
