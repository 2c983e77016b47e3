#include "ringlet/core/make_folder.h"

#include <system_error>

#include "ringlet/core/error.h"
#include "ringlet/core/failpoint.h"

namespace ringlet {

void make_folder(const std::filesystem::path& folder, const std::string& hint) {
  std::error_code problem;
  if (const int injected = failpoint("make_folder"))
    problem.assign(injected, std::generic_category());
  else
    std::filesystem::create_directories(folder, problem);
  if (problem)
    throw Error(problem == std::errc::no_space_on_device ? ErrorCode::no_space : ErrorCode::io,
                folder.string(), "the folder cannot be created: " + problem.message(), hint);
}

}  // namespace ringlet
