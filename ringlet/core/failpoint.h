// Fault injection for tests: a named place in the code that can be told to fail.
#pragma once

#include <string_view>

namespace ringlet {

/// Makes the `nth` (1 = next) call of failpoint(name) report `error_number`; with `persistent`
/// every later call too. An empty name disarms all. Meant for tests; costs one atomic load when
/// disarmed.
void arm_failpoint(std::string_view name, int error_number, int nth = 1, bool persistent = false);

/// The errno to fail with at this place, or 0.
int failpoint(std::string_view name);

}  // namespace ringlet
