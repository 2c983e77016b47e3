#include "installed_model.h"

#include <filesystem>
#include <system_error>

namespace ringlet::app {

std::string installed_model(const std::string& model) {
  namespace fs = std::filesystem;
  std::error_code failed;
  if (model != "starter" || fs::exists(model, failed)) return model;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  const fs::path prefix = program.parent_path().parent_path();
  // Installed, or built in a folder of the sources: build/release/bin.
  for (const fs::path& folder :
       {prefix / "share/ringlet" / model, prefix.parent_path().parent_path() / "assets" / model})
    if (fs::is_directory(folder, failed)) return folder.string();
  return model;
}

}  // namespace ringlet::app
