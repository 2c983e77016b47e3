// Models that are installed with the program.
#pragma once

#include <string>

namespace ringlet::app {

/// The folder behind a value of --model: "starter" is share/ringlet/starter beside the bin folder
/// of the running program, or assets/starter of the sources that it was built in, unless the
/// working folder has something of that name. All other values, and "starter" where neither is
/// there, come back as they are.
std::string installed_model(const std::string& model);

}  // namespace ringlet::app
