// The formats that adapters are written in.
#pragma once

#include <string>

#include "ringlet/formats/adapter_names.h"

namespace ringlet::formats {

enum class AdapterFormat { ringlet, peft, diffusers, kohya, lycoris };

/// "ringlet", "peft", … Throws Error(invalid_argument) with the known ones.
AdapterFormat parse_adapter_format(const std::string& name);

const char* name_of(AdapterFormat format);  ///< "peft"

/// Who names the layers in a format of another program. LyCORIS' methods live under kohya's names,
/// which is where programs look for them.
Naming naming_of(AdapterFormat format);

}  // namespace ringlet::formats
