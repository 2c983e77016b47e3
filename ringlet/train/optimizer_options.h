// Numbers of one optimiser alone, written as KEY=VALUE.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/option.h"

namespace ringlet::train {

/// Reads texts such as "momentum=0.9,nesterov=yes" into the options of the list: numbers, and yes
/// or no. Throws Error(invalid_argument) at `optimizer_options` for a key that the list does not
/// have, with the nearest one, and a value that cannot be; `optimizer` is its name, for messages.
void read_optimizer_options(OptionList& list, const std::vector<std::string>& texts,
                            const std::string& optimizer);

/// A flag whose default depends on other options: none until it is given.
WrittenValue optional_flag(std::optional<bool>& value);

}  // namespace ringlet::train
