// The level that transformers puts between a network and its head: GPT2LMHeadModel holds a
// GPT2Model as `transformer`, so that its layers are "transformer.h.0.…". Published files have or
// lack it.
#pragma once

#include <optional>
#include <string>

#include "ringlet/formats/adapter_names.h"

namespace ringlet::formats {

/// The level of a class of transformers, "transformer." for "GPT2LMHeadModel"; "" for one without a
/// head ("GPT2Model") and for classes that are not known.
std::string inner_level(const std::string& architecture);

/// The layer that PEFT's name ("base_model.model.PATH") means in a network whose names have or lack
/// such a level where the adapter's do not, or nothing where none or several would do.
std::optional<ModuleName> find_at_other_level(const ModuleNames& names, const std::string& prefix,
                                              const std::string& component);

}  // namespace ringlet::formats
