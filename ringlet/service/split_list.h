// Lists of methods and budgets as users write them.
#pragma once

#include <string>
#include <vector>

#include "ringlet/core/error.h"

namespace ringlet::service {

/// The texts between commas that no bracket encloses, without spaces. Throws
/// Error(invalid_argument) at the option for an empty one.
std::vector<std::string> split_list(const std::string& text, const Field& option);

}  // namespace ringlet::service
