// Several errors that a user should see at once.
#pragma once

#include <string>
#include <vector>

#include "ringlet/core/error.h"

namespace ringlet {

/// Does nothing without problems. Throws a single one as it is, and of several an Error of the
/// first one's kind: `where`, `what` ("3 of 40 pictures cannot be read"), and a line for each.
void throw_together(const std::vector<Error>& problems, const std::string& where,
                    const std::string& what);

}  // namespace ringlet
