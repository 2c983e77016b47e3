#include "installed_model.h"

#include <filesystem>
#include <system_error>

namespace ringlet::app {

std::string installed_model(const std::string& model) {
  namespace fs = std::filesystem;
  std::error_code failed;
  if (model != "starter" || fs::exists(model, failed)) return model;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  const fs::path folder = program.parent_path().parent_path() / "share/ringlet" / model;
  return fs::is_directory(folder, failed) ? folder.string() : model;
}

}  // namespace ringlet::app
